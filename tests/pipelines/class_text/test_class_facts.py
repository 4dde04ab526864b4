"""Statistics of classes on synthetic images, and their text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dsmoe_core.errors import ImageError
from dsmoe_core.schema import Annotation, Box, ImageRecord, LabelledImage
from pipelines import cli
from pipelines.class_text.class_facts import ClassFacts, Quartiles, measure_classes
from pipelines.class_text.facts_text import facts_line
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.workspace.workspace import Workspace

PX = 120


def render_image(
    folder: Path, name: str, boxes: list[tuple[str, Box, int]], background: int = 100
) -> LabelledImage:
    """Write a grey image with a filled rectangle of the given grey level in each box."""
    grey = np.full((PX, PX), background, dtype=np.uint8)
    for _, box, value in boxes:
        x1, y1, x2, y2 = map(int, box.corners)
        grey[y1:y2, x1:x2] = value
    path = folder / f"{name}.png"
    Image.fromarray(grey).save(path)
    annotations = tuple(Annotation(box, label) for label, box, _ in boxes)
    return LabelledImage(ImageRecord(name, name, path, PX, PX), annotations)


@pytest.fixture
def plates(tmp_path: Path) -> list[LabelledImage]:
    """Scratches: flat and dark, at the top left. Spots: square and bright, two in the centre."""
    images = []
    for i in range(4):
        scratch = ("scratch", Box(4 + i, 10, 34 + i, 14), 60)
        spots = [("spot", Box(45 + 12 * j, 55, 55 + 12 * j, 65), 130) for j in range(2)]
        images.append(render_image(tmp_path, f"p{i}", [scratch, *spots] if i < 2 else [scratch]))
    return [*images, render_image(tmp_path, "clean", [])]


def test_facts_match_the_synthetic_boxes(plates: list[LabelledImage]) -> None:
    facts = measure_classes(plates, ["scratch", "spot", "dent"])
    scratch, spot = facts["scratch"], facts["spot"]
    assert (scratch.boxes, scratch.images, scratch.labelled_images) == (4, 4, 5)
    assert (spot.boxes, spot.images) == (4, 2)
    assert scratch.width == Quartiles(30, 30, 30)
    assert scratch.height == Quartiles(4, 4, 4)
    assert scratch.aspect == Quartiles(7.5, 7.5, 7.5)
    assert scratch.area_share == pytest.approx((120 / PX**2,) * 3)
    assert scratch.contrast == pytest.approx((-40, -40, -40))
    assert spot.contrast == pytest.approx((30, 30, 30))
    assert scratch.orientation == {"horizontal": 1.0}
    assert len(spot.orientation) == 1
    assert "horizontal" not in spot.orientation
    assert scratch.place == {"top left": 1.0}
    assert spot.place == {"centre": 1.0}
    assert (scratch.at_edge, spot.at_edge) == (0, 0)
    assert (scratch.per_image, spot.per_image) == (Quartiles(1, 1, 1), Quartiles(2, 2, 2))


def test_text_contains_the_statistics(plates: list[LabelledImage]) -> None:
    facts = measure_classes(plates, ["scratch", "spot"])
    text = facts_line(facts["scratch"])
    for part in (
        "4 annotated boxes on 4 of 5 images, 1 on an image",
        "small, 30 x 4 px, 0.833 % of the image",
        "wider than high, width : height 7.5",
        "darker than around it, -40 of 255",
        "mostly horizontal, 100%",
        "mostly top left, 100% of the boxes; 0% touch",
    ):
        assert part in text
    assert "brighter than around it, +30 of 255" in facts_line(facts["spot"])
    assert "about as wide as high" in facts_line(facts["spot"])


def test_class_without_boxes_has_no_statistics(plates: list[LabelledImage]) -> None:
    facts = measure_classes(plates, ["scratch", "spot", "dent"])["dent"]
    assert facts == ClassFacts("dent", 0, 0, 5)
    assert not any(character.isdigit() for character in facts_line(facts))
    assert measure_classes([], ["dent"])["dent"].labelled_images == 0


def test_text_contains_quartiles_that_differ(tmp_path: Path) -> None:
    boxes = [("spot", Box(20 * i, 50, 20 * i + 10 + i, 60), 40 if i % 2 else 160) for i in range(6)]
    text = facts_line(measure_classes([render_image(tmp_path, "p", boxes)], ["spot"])["spot"])
    assert "12.5 (11.2 to 13.8) x 10 px" in text
    assert "darker or brighter than around it" in text
    assert "spread over the image; 17% touch" in text


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=30))
@settings(deadline=None)
def test_quartiles_are_in_order_and_within_the_values(values: list[float]) -> None:
    lower, median, upper = Quartiles.of(values)
    assert min(values) <= lower <= median <= upper <= max(values)


def test_only_the_region_of_an_image_is_measured(tmp_path: Path) -> None:
    full = render_image(tmp_path, "p", [("spot", Box(70, 70, 80, 80), 150)])
    region = ImageRecord("t", "t", full.image.path, 60, 60, region=(60, 60, 120, 120))
    tile = LabelledImage(region, (Annotation(Box(10, 10, 20, 20), "spot"),))
    assert measure_classes([tile], ["spot"])["spot"].contrast == pytest.approx((50, 50, 50))


def test_missing_image_is_named(plates: list[LabelledImage]) -> None:
    plates[0].image.path.unlink()
    with pytest.raises(ImageError, match="p0"):
        measure_classes(plates, ["scratch", "spot"])


def test_command_prints_the_number_of_boxes_of_each_class(
    context: LoopContext,
    workspace: Workspace,
    label: Callable[[LoopContext], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def box_counts() -> list[int]:
        rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("│ ")]
        return [int(cell) for row in rows if (cell := row.split("│")[2].strip())]

    assert cli.run(["classes", "facts", str(workspace.path)]) == 0
    assert set(box_counts()) == {0}
    open_round(context)
    label(context)
    close_round(context)
    assert cli.run(["classes", "facts", str(workspace.path)]) == 0
    boxes = [len(h.annotations) for h in workspace.journal.harvests().values()]
    assert sum(box_counts()) == sum(boxes) > 0
