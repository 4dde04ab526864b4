"""Strict reading, and labels from which nothing can be taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsmoe_core.data.formats import read_annotations
from dsmoe_core.data.import_account import MAX_NAMED, MAX_REFUSED
from dsmoe_core.data.label_source import ReadOptions
from dsmoe_core.errors import FormatError

STRICT = ReadOptions(strict=True)


def write(tmp_path: Path, boxes: list[list[float]]) -> Path:
    entries: list[dict[str, Any]] = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(boxes)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": entries,
        "categories": [{"id": 1, "name": "spur"}],
    }
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    return path


def test_strict_reading_takes_labels_that_are_right(tmp_path: Path) -> None:
    assert len(read_annotations(write(tmp_path, [[1, 2, 3, 4]]), tmp_path, STRICT).images) == 1


@pytest.mark.parametrize(("wrong", "lines"), [(1, 1), (3, 3), (120, MAX_REFUSED + 1)])
def test_strict_reading_names_every_wrong_entry(tmp_path: Path, wrong: int, lines: int) -> None:
    path = write(tmp_path, [[1, 2, 3, 4], *[[1, 2, 0, 4]] * (wrong - 1), [-1, 2, 3, 4]])
    with pytest.raises(FormatError, match=str(path)) as caught:
        read_annotations(path, tmp_path, STRICT)
    assert len(caught.value.details) == lines
    assert "annotation 1)" in caught.value.details[0]


def test_labels_without_any_usable_image_are_refused_with_reasons(tmp_path: Path) -> None:
    path = write(tmp_path, [[1, 2, 0, 4]] * 30)
    with pytest.raises(FormatError, match=str(path)) as caught:
        read_annotations(path, tmp_path)
    assert len(caught.value.details) == MAX_NAMED
