"""Properties of all synthetic generators: determinism, valid boxes, and all classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from dsmoe_core.config import SyntheticKind
from dsmoe_core.data import coco
from dsmoe_core.data.synthetic import GENERATORS, write_synthetic_set
from dsmoe_core.data.synthetic.rendering import SyntheticImage, boxes_overlap

PX, SEEDS = 128, 60
each_kind = pytest.mark.parametrize("kind", GENERATORS)


@pytest.fixture(scope="module")
def rendered() -> dict[SyntheticKind, list[SyntheticImage]]:
    return {
        kind: [generator.render(seed, PX) for seed in range(SEEDS)] for kind, generator in GENERATORS.items()
    }


def test_every_kind_of_the_settings_has_a_generator() -> None:
    assert tuple(GENERATORS) == get_args(SyntheticKind)
    assert [len(generator.classes) for generator in GENERATORS.values()] == [6, 4, 18]
    classes = [name for generator in GENERATORS.values() for name in generator.classes]
    assert len(set(classes)) == len(classes)


@each_kind
def test_equal_seeds_give_equal_images(
    kind: SyntheticKind, rendered: dict[SyntheticKind, list[SyntheticImage]]
) -> None:
    for seed in (3, 7):
        repeated = GENERATORS[kind].render(seed, PX)
        assert repeated.image.tobytes() == rendered[kind][seed].image.tobytes()
        assert repeated.annotations == rendered[kind][seed].annotations
    assert len({image.image.tobytes() for image in rendered[kind]}) == SEEDS


@each_kind
def test_boxes_are_inside_the_image_and_do_not_overlap(
    kind: SyntheticKind, rendered: dict[SyntheticKind, list[SyntheticImage]]
) -> None:
    for image in rendered[kind]:
        assert (image.image.mode, image.image.size) == ("RGB", (PX, PX))
        boxes = [a.box for a in image.annotations]
        assert all(box.inside(PX, PX, tolerance=0.0) for box in boxes)
        assert all(min(box.width, box.height) >= 2 for box in boxes)
        assert not any(boxes_overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])


@each_kind
def test_every_class_occurs_and_some_images_have_no_defect(
    kind: SyntheticKind, rendered: dict[SyntheticKind, list[SyntheticImage]]
) -> None:
    labels = Counter(a.label for image in rendered[kind] for a in image.annotations)
    assert set(labels) == set(GENERATORS[kind].classes)
    defect_free = sum(not image.annotations for image in rendered[kind])
    assert 0 < defect_free < SEEDS / 4


@each_kind
def test_boxes_scale_with_the_image(kind: SyntheticKind) -> None:
    def mean_side(px: int) -> float:
        boxes = [a.box for seed in range(6) for a in GENERATORS[kind].render(seed, px).annotations]
        return sum(box.width + box.height for box in boxes) / len(boxes)

    assert 1.5 < mean_side(256) / mean_side(128) < 2.7


@each_kind
def test_set_has_the_layout_of_the_real_ones(kind: SyntheticKind, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_synthetic_set(
        tmp_path, kind, 3, 2, seed=1, px=128, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    train, val = coco.read(tmp_path / "train.json"), coco.read(tmp_path / "val.json")
    assert train.classes == val.classes == GENERATORS[kind].classes
    assert (len(train.images), len(val.images)) == (3, 2)
    names = {image.name for image in (*train.images, *val.images)}
    assert names == {p.name for p in (tmp_path / "images").iterdir()}
    expected = GENERATORS[kind].render(1_000_002, 128).annotations
    assert [a.label for a in train.images[2].annotations] == [a.label for a in expected]
    for read, rendered in zip(train.images[2].annotations, expected, strict=True):
        assert read.box.corners == pytest.approx(rendered.box.corners)


def test_existing_set_with_the_same_arguments_is_kept(tmp_path: Path) -> None:
    calls: list[int] = []
    sets: list[tuple[SyntheticKind, int]] = [("pcb", 1), ("pcb", 1), ("pcb", 2), ("glass", 2)]
    for kind, seed in sets:
        write_synthetic_set(
            tmp_path, kind, 1, 1, seed=seed, px=96, progress=lambda done, total: calls.append(done)
        )
        calls.append(0)
    assert calls == [1, 2, 0, 0, 1, 2, 0, 1, 2, 0]
