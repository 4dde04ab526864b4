"""Loading data sets and sampling shares of the training images."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dsmoe_core.errors import DataError, SettingsError
from dsmoe_core.schema import LabelledImage
from pipelines.benchmarks.comparison.dataset import (
    InnerSplit,
    load_dataset,
    with_train_images,
    with_train_share,
)
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset
from tests.pipelines.benchmarks.comparison.conftest import RecordingProgress


def test_share_depends_on_the_seed_has_a_box_and_is_nested(dataset: BenchmarkDataset) -> None:
    first = next(i for i, image in enumerate(dataset.train) if image.annotations)
    one_labelled = [
        replace(image, annotations=()) if i != first else image for i, image in enumerate(dataset.train)
    ]
    rare = replace(dataset, train=tuple(one_labelled))
    for seed in range(6):
        tiny, half, full = (with_train_share(rare, share, seed) for share in (0.01, 0.5, 1.0))
        assert tiny.train == (rare.train[first],)
        assert len(half.train) == 5
        assert {p.image.name for p in tiny.train} <= {p.image.name for p in half.train}
        assert full is rare
        assert half.val == rare.val
    assert with_train_share(dataset, 0.3, 1) == with_train_share(dataset, 0.3, 1)
    samples = {tuple(p.image.name for p in with_train_share(dataset, 0.3, seed).train) for seed in range(6)}
    assert len(samples) > 1


def test_sample_has_the_given_number_of_images_and_more_than_there_are_is_refused(
    dataset: BenchmarkDataset,
) -> None:
    assert len(with_train_images(dataset, 9, 1).train) == 9
    assert with_train_images(dataset, 10, 1) is dataset
    with pytest.raises(SettingsError, match=r"11 .* 10"):
        with_train_images(dataset, 11, 1)


@pytest.mark.parametrize("part", ["train", "val"])
def test_unreadable_image_is_refused(data: Path, tmp_path: Path, part: str) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    (copy / "images" / f"{part}-000.png").write_bytes(b"not an image")
    with (
        pytest.raises(DataError, match=rf"{part}\.json .*{part}-000\.png"),
        load_dataset(copy, RecordingProgress()),
    ):
        pass


def test_part_without_a_box_is_refused(data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    content = json.loads((copy / "val.json").read_text())
    (copy / "val.json").write_text(json.dumps(content | {"annotations": []}))
    with pytest.raises(DataError, match=r"val\.json"), load_dataset(copy, RecordingProgress()):
        pass


def names(images: Sequence[LabelledImage]) -> list[str]:
    return [labelled.image.name for labelled in images]


def test_inner_split_cuts_a_share_of_the_training_images(dataset: BenchmarkDataset) -> None:
    inner = InnerSplit(0.3).cut(dataset)
    assert (len(inner.train), len(inner.val)) == (7, 3)
    assert sorted(names((*inner.train, *inner.val))) == sorted(names(dataset.train))
    assert not set(names(inner.val)) & set(names(dataset.val))
    assert InnerSplit(0.3).cut(dataset) == inner
    assert set(names(inner.val)) <= set(names(InnerSplit(0.6).cut(dataset).val))


@pytest.mark.parametrize(("share", "sizes"), [(0.2, [2]), (0.45, [2, 2]), (0.05, [1])])
def test_inner_split_takes_whole_groups_that_fit(
    dataset: BenchmarkDataset, share: float, sizes: list[int]
) -> None:
    """Groups of 1, 2, 2, 2 and 3 of the ten training images."""
    groups = ["a", "b", "b", "c", "c", "d", "d", "e", "e", "e"]
    renamed = tuple(
        replace(one, image=replace(one.image, name=f"{group}-{number}.png"))
        for number, (one, group) in enumerate(zip(dataset.train, groups, strict=True))
    )
    inner = InnerSplit(share, re.compile("^[a-e]")).cut(replace(dataset, train=renamed))
    trained, selected = (Counter(name[0] for name in names(part)) for part in (inner.train, inner.val))
    assert not set(trained) & set(selected)
    assert trained + selected == Counter(groups)
    assert selected.total() <= max(1, share * 10)
    if share < 0.4:
        assert len(selected) == len(sizes)


def test_inner_split_of_one_group_or_without_boxes_is_refused(dataset: BenchmarkDataset) -> None:
    with pytest.raises(DataError, match="1 groups"):
        InnerSplit(0.5, re.compile("train")).cut(dataset)
    one_labelled = tuple(replace(image, annotations=()) for image in dataset.train[1:])
    with pytest.raises(DataError, match="10 groups"):
        InnerSplit(0.3).cut(replace(dataset, train=(dataset.train[0], *one_labelled)))
