"""Grouping of images by a part of their names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dsmoe_core.errors import SettingsError
from dsmoe_core.evaluation.bootstrap import resample_counts
from dsmoe_core.evaluation.metrics import evaluation_tables
from dsmoe_core.schema import ImageRecord, LabelledImage
from pipelines.evaluation.report.groups import MAX_GROUPS, OTHERS, group_images, group_metrics


def images(*names: str) -> list[LabelledImage]:
    return [LabelledImage(ImageRecord(name, name, Path(name), 8, 8), ()) for name in names]


@pytest.mark.parametrize(
    ("pattern", "names", "expected"),
    [
        ("^[^/]+", ["b/1", "a/2", "b/3"], {"a": ["a/2"], "b": ["b/1", "b/3"]}),
        (r"cam(\d)", ["x", "cam2-a", "cam1-a"], {"1": ["cam1-a"], "2": ["cam2-a"], OTHERS: ["x"]}),
        ("(a)|b", ["a", "b"], {"a": ["a"], OTHERS: ["b"]}),
        ("nowhere", ["a"], {OTHERS: ["a"]}),
    ],
)
def test_images_are_grouped_by_the_match(
    pattern: str, names: list[str], expected: dict[str, list[str]]
) -> None:
    groups = group_images(re.compile(pattern), images(*names))
    assert {name: [p.image.name for p in group] for name, group in groups.items()} == expected
    assert list(groups) == list(expected)


def test_too_many_groups_are_refused() -> None:
    names = [f"{i:04d}" for i in range(MAX_GROUPS + 1)]
    with pytest.raises(SettingsError, match=f"{MAX_GROUPS + 1} groups"):
        group_images(re.compile(".*"), images(*names))


def test_group_without_boxes_and_detections_has_no_metrics() -> None:
    truth = images("a")
    tables = evaluation_tables({}, truth, ["rust"], resample_counts(1, 100, seed=1), lambda *_: None)
    (row,) = group_metrics({"a": truth}, {}, tables, 0.5)
    assert row == {"name": "a", "images": 1, "boxes": 0, "classes": {}}
