"""Groups of pictures by a part of their names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dsmoe_core.errors import SettingsError
from dsmoe_core.evaluation.bootstrap import draws
from dsmoe_core.evaluation.metrics import judged
from dsmoe_core.schema import LabelledPicture, Picture
from pipelines.evaluation.report.groups import MOST, OTHERS, by_group, grouped


def pictures(*names: str) -> list[LabelledPicture]:
    return [LabelledPicture(Picture(name, name, Path(name), 8, 8), ()) for name in names]


@pytest.mark.parametrize(
    ("pattern", "names", "expected"),
    [
        ("^[^/]+", ["b/1", "a/2", "b/3"], {"a": ["a/2"], "b": ["b/1", "b/3"]}),
        (r"cam(\d)", ["x", "cam2-a", "cam1-a"], {"1": ["cam1-a"], "2": ["cam2-a"], OTHERS: ["x"]}),
        ("(a)|b", ["a", "b"], {"a": ["a"], OTHERS: ["b"]}),
        ("nowhere", ["a"], {OTHERS: ["a"]}),
    ],
)
def test_names_that_share_what_matches_are_a_group(
    pattern: str, names: list[str], expected: dict[str, list[str]]
) -> None:
    found = grouped(re.compile(pattern), pictures(*names))
    assert {name: [one.picture.name for one in group] for name, group in found.items()} == expected
    assert list(found) == list(expected)


def test_a_group_for_every_picture_is_refused() -> None:
    names = [f"{i:04d}" for i in range(MOST + 1)]
    with pytest.raises(SettingsError, match=f"makes {MOST + 1} groups of {MOST + 1} pictures"):
        grouped(re.compile(".*"), pictures(*names))


def test_a_group_without_boxes_and_findings_has_no_figures() -> None:
    truth = pictures("a")
    whole = judged({}, truth, ["rust"], draws(1, 100, seed=1), lambda *_: None)
    (row,) = by_group({"a": truth}, {}, whole, 0.5)
    assert row == {"name": "a", "pictures": 1, "boxes": 0, "classes": {}}
