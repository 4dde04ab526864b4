"""Tests of the difference of dataset versions, and that no image changes its split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.schema import Annotation, Box, ClassText, ImageRecord, LabelledImage, Vocabulary
from pipelines.cli import run
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.workspace.dataset_diff import ClassDiff, diff_versions
from pipelines.workspace.dataset_version import DatasetVersion

VOCABULARY = Vocabulary((ClassText("spur", "a spur"), ClassText("short", "a short")), version="book1")
Label = Callable[[LoopContext], None]
Boxes = list[tuple[float, float, float, float, str]]


def version(images: dict[str, Boxes]) -> DatasetVersion:
    labelled = [
        LabelledImage(
            ImageRecord(key, f"{key}.png", Path(f"/w/{key}.png"), 100, 100),
            tuple(Annotation(Box(*b[:4]), b[4]) for b in boxes),
        )
        for key, boxes in images.items()
    ]
    return DatasetVersion.of(labelled, VOCABULARY)


def test_every_kind_of_change_is_counted_by_class() -> None:
    before = version(
        {
            "same": [(0, 0, 10, 10, "spur")],
            "gone": [(0, 0, 10, 10, "short"), (50, 50, 60, 60, "short")],
            "edited": [
                (0, 0, 10, 10, "spur"),
                (20, 20, 40, 40, "spur"),
                (60, 60, 80, 80, "short"),
                (85, 85, 95, 95, "short"),
            ],
        }
    )
    after = version(
        {
            "same": [(0, 0, 10, 10, "spur")],
            "new": [(5, 5, 15, 15, "spur")],
            "edited": [
                (0, 0, 10, 10, "short"),
                (21, 20, 41, 40, "spur"),
                (60, 60, 80, 80, "short"),
                (0, 50, 10, 60, "spur"),
            ],
        }
    )
    diff = diff_versions(before, after)
    assert (diff.added, diff.removed, diff.changed) == (("new.png",), ("gone.png",), ("edited.png",))
    assert diff.boxes == (7, 6)
    assert diff.classes == {
        "spur": ClassDiff(added=2, moved=1, relabelled_from=1),
        "short": ClassDiff(removed=3, relabelled_to=1),
    }


CORNERS = st.tuples(
    st.integers(0, 40), st.integers(0, 40), st.integers(50, 100), st.integers(50, 100),
    st.sampled_from(["spur", "short"]),
)  # fmt: skip
IMAGES = st.dictionaries(st.sampled_from("abcd"), st.lists(CORNERS, max_size=4), max_size=4)


@given(IMAGES, IMAGES)
def test_counts_explain_the_numbers_of_boxes_and_images(old: dict[str, Boxes], new: dict[str, Boxes]) -> None:
    before, after = version(old), version(new)
    diff = diff_versions(before, after)
    assert len(after.train) - len(before.train) == len(diff.added) - len(diff.removed)
    for name in VOCABULARY.names:
        row = diff.classes.get(name, ClassDiff())
        counts = [sum(b.label == name for i in v.train for b in i.boxes) for v in (before, after)]
        assert counts[1] - counts[0] == row.added + row.relabelled_to - row.removed - row.relabelled_from
    assert diff.is_empty == (before.train == after.train)
    assert diff_versions(before, before).is_empty


def test_no_image_moves_between_training_and_test_set(context: LoopContext, label: Label) -> None:
    workspace = context.workspace
    before = {role: {i.key for i in workspace.images(role)} for role in ("pool", "test")}
    for _ in range(2):
        open_round(context)
        label(context)
        close_round(context)
    test = workspace.journal.value("test_set")
    held_out = {item.key for item in workspace.dataset_version(test).train}
    assert held_out == before["test"]
    made = [v for v in workspace.dataset_versions() if v.id != test]
    assert len(made) == 2
    for v in made:
        assert v.test_set == test
        assert {item.key for item in v.train} <= before["pool"]
        assert not {item.key for item in v.train} & held_out
    workspace.journal.add_images(
        workspace.images("test"), "pool", workspace.path
    )  # as a repeated import does
    assert {i.key for i in workspace.images("test")} == before["test"]


def test_commands_list_and_compare_the_versions(
    context: LoopContext, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    where = str(context.workspace.path)
    for _ in range(2):
        open_round(context)
        label(context)
        close_round(context)
    first, second = context.workspace.rounds()
    capsys.readouterr()
    assert run(["data", "versions", where, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["id"], r["round"], r["images"], r["models"]) for r in rows[1:]] == [
        (first.dataset_version, 0, first.images, [first.model]),
        (second.dataset_version, 1, second.images, [second.model]),
    ]
    assert rows[0]["is_test_set"]
    assert (
        run(["data", "diff", str(first.dataset_version), str(second.dataset_version), where, "--json"]) == 0
    )
    diff = json.loads(capsys.readouterr().out)
    assert len(diff["images"]["added"]) == second.new_images
    assert diff["boxes"] == {"before": first.boxes, "after": second.boxes}
    assert run(["data", "versions", where]) == 0
    assert run(["data", "diff", str(first.dataset_version), "no-such-version", where]) == 2


@pytest.mark.parametrize("first_id", [0, 1])
def test_a_version_is_exported_with_the_category_ids_of_the_trainer(
    context: LoopContext, label: Label, tmp_path: Path, first_id: int
) -> None:
    from pycocotools.coco import COCO

    open_round(context)
    label(context)
    close_round(context)
    workspace = context.workspace
    made = str(workspace.rounds()[0].dataset_version)
    out = tmp_path / "export"
    options = ["--format", "coco", "--out", str(out), "--version", made, "--first-id", str(first_id)]
    assert run(["data", "export", str(workspace.path), *options]) == 0
    read = COCO(str(out / "train.json"))
    dataset = workspace.dataset_version(made)
    assert sorted(read.getCatIds()) == list(range(first_id, first_id + len(dataset.classes)))
    assert [read.cats[i]["name"] for i in sorted(read.cats)] == list(dataset.classes)
    assert len(read.anns) == dataset.boxes
    for item in dataset.train:
        image_id = next(i for i, entry in read.imgs.items() if entry["file_name"] == item.name)
        found = sorted((*a["bbox"], read.cats[a["category_id"]]["name"]) for a in read.imgToAnns[image_id])
        expected = sorted(
            (b.box[0], b.box[1], b.box[2] - b.box[0], b.box[3] - b.box[1], b.label) for b in item.boxes
        )
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert a[:4] == pytest.approx(b[:4], abs=1e-6)
            assert a[4] == b[4]
    assert (
        run(["data", "export", str(workspace.path), "--format", "voc", "--out", str(out), "--first-id", "0"])
        == 2
    )
