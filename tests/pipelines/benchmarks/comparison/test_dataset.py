"""Loading data sets and sampling shares of the training images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dsmoe_core.errors import DataError
from pipelines.benchmarks.comparison.dataset import load_dataset, with_train_share
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
