"""Adding images and labels to an existing workspace."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.formats import read_annotations
from dsmoe_core.data.import_account import Reason
from dsmoe_core.errors import ClassBookError, DataError, FormatError, SettingsError, WorkspaceError
from dsmoe_core.schema import Annotation, Box
from pipelines import cli
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import open_round
from pipelines.rounds.pool import pool
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.additions import Addition, AdditionResult, add_to_workspace
from pipelines.workspace.import_log import read_imports
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.workspace import Workspace
from tests.pipelines.blocks import COLOURS, write_blocks

Label = Callable[[LoopContext], None]


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """A data folder with four other images in the pool and two in val.json."""
    return write_blocks(tmp_path / "more", train=4, val=2, seed=9)


def labels(data: Path, name: str = "train.json") -> AnnotationSet:
    return read_annotations(data / name, data / "images")


def add(workspace: Workspace, data: Path, **changes: object) -> AdditionResult:
    return add_to_workspace(workspace, replace(Addition(data / "images"), **changes))


def reasons(result: AdditionResult) -> dict[str, Reason]:
    assert result.account is not None
    return {entry.image: entry.reason for entry in result.account.entries}


def test_images_and_labels_are_added_once(workspace: Workspace, more: Path) -> None:
    before = workspace.images()
    first = add(workspace, more, labels=labels(more))
    assert (first.new_images, first.test_images, first.new_labels) == (6, 0, 4)
    second = add(workspace, more, labels=labels(more))
    assert (second.new_images, second.new_labels, second.replaced_labels) == (0, 0, ())
    assert len(workspace.images("pool")) == 12 + 6
    assert set(before) <= set(workspace.images())
    assert len(workspace.annotations()) == 4
    assert len(pool(workspace)) == 12 + 2
    assert first.account is not None
    assert first.account.is_balanced


def test_test_set_stays_as_it_is(workspace: Workspace, blocks: Path) -> None:
    test = workspace.test_set()
    result = add(workspace, blocks)
    assert (result.new_images, result.test_images) == (0, 5)
    assert workspace.test_set() == test
    assert len(workspace.images("pool")) == 12
    with pytest.raises(DataError, match=r"5 .* val-000\.png") as error:
        add(workspace, blocks, labels=labels(blocks, "val.json"))
    assert len(error.value.details) == 5
    assert workspace.annotations() == {}


def test_test_image_under_another_name_is_refused_too(
    workspace: Workspace, blocks: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    shutil.copy(blocks / "images" / "val-001.png", tmp_path / "images" / "other.png")
    entry = replace(labels(blocks, "val.json").images[1], name="other.png")
    with pytest.raises(DataError, match=r"other\.png"):
        add(workspace, tmp_path, labels=AnnotationSet(tuple(COLOURS), (entry,)))


def test_open_round_is_not_changed(context: LoopContext, more: Path, blocks: Path) -> None:
    workspace = context.workspace
    open_round(context)
    tasks = workspace.journal.tasks()
    result = add(workspace, more, labels=labels(more))
    assert (result.new_images, result.new_labels) == (6, 4)
    assert workspace.journal.tasks() == tasks
    assert [row.state for row in workspace.rounds()] == ["open"]
    sent = {workspace.images_by_key()[task.key].name for task in tasks}
    result = add(workspace, blocks, labels=labels(blocks))
    assert {n for n, r in reasons(result).items() if r is Reason.SENT_OUT} == sent
    assert result.new_labels == 12 - len(sent)
    assert not set(workspace.annotations()) & {task.key for task in tasks}


def test_annotators_win_over_imported_labels(context: LoopContext, label: Label, blocks: Path) -> None:
    workspace = context.workspace
    open_round(context)
    label(context)
    for harvest in context.studio.harvest(context.project(), since=None, consensus="latest"):
        workspace.journal.record_harvests([harvest])
    truth = workspace.annotations()
    assert add(workspace, blocks, labels=labels(blocks)).new_labels == 12 - len(truth)  # the same boxes
    other = shifted(labels(blocks))
    result = add(workspace, blocks, labels=other)
    names = {p.image.name for p in truth.values()}
    assert {n for n, r in reasons(result).items() if r is Reason.ANNOTATED} == names
    assert set(result.replaced_labels) == {e.name for e in other.images} - names
    assert {key: workspace.annotations()[key] for key in truth} == truth


def shifted(annotations: AnnotationSet) -> AnnotationSet:
    """The annotations with one box on every image, at another place."""
    box = Annotation(Box(1, 1, 9, 9), next(iter(COLOURS)))
    return replace(annotations, images=tuple(replace(e, annotations=(box,)) for e in annotations.images))


def test_newer_imported_labels_replace_older_ones_every_time(workspace: Workspace, more: Path) -> None:
    first, second = labels(more), shifted(labels(more))
    for given in (first, second, first, second):
        add(workspace, more, labels=given)
    boxes = {a for p in workspace.annotations().values() for a in p.annotations}
    assert boxes == {Annotation(Box(1, 1, 9, 9), next(iter(COLOURS)))}
    dates = [h.updated_at for h in workspace.journal.harvests().values()]
    assert max(dates) < datetime(1970, 1, 2, tzinfo=UTC)  # before every annotation


def test_skipped_image_is_not_labelled_by_an_import(context: LoopContext, blocks: Path, label: Label) -> None:
    workspace = context.workspace
    open_round(context)
    label(context)
    harvests = context.studio.harvest(context.project(), since=None, consensus="latest")
    workspace.journal.record_harvests([replace(h, skipped=True) for h in harvests])
    result = add(workspace, blocks, labels=labels(blocks))
    sent = len(workspace.journal.tasks())
    assert sum(r is Reason.ANNOTATED for r in reasons(result).values()) == sent
    assert not set(workspace.annotations()) & {task.key for task in workspace.journal.tasks()}


def test_nothing_is_recorded_before_everything_is_checked(workspace: Workspace, more: Path) -> None:
    before = workspace.images()
    unknown = AnnotationSet(
        ("dent",), (replace(labels(more).images[0], annotations=(Annotation(Box(1, 1, 9, 9), "dent"),)),)
    )
    with pytest.raises(ClassBookError, match="dent"):
        add(workspace, more, labels=unknown)
    missing = replace(
        labels(more), images=(*labels(more).images, replace(labels(more).images[0], name="gone.png"))
    )
    with pytest.raises(FormatError):
        add(workspace, more, labels=missing, strict=True)
    with pytest.raises(DataError):
        add_to_workspace(workspace, Addition(more / "nowhere"))
    (more / "empty").mkdir()
    with pytest.raises(DataError):
        add_to_workspace(workspace, Addition(more / "empty"))
    assert workspace.images() == before
    assert workspace.annotations() == {}


def test_killed_addition_is_completed_by_the_same_command(
    workspace: Workspace, more: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(type(workspace.journal), "record_harvests", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            add(workspace, more, labels=labels(more))
    result = add(workspace, more, labels=labels(more))
    assert (result.new_images, result.new_labels) == (0, 4)
    assert len(workspace.annotations()) == 4


def test_workspace_in_use_is_refused(workspace: Workspace, more: Path) -> None:
    other = Workspace.open(workspace.path)
    with other.locked(), pytest.raises(WorkspaceError, match=r"process \d+"):
        add(workspace, more)


def test_quarantine_is_kept_and_corrected(workspace: Workspace, more: Path) -> None:
    good = (more / "images" / "train-000.png").read_bytes()
    (more / "images" / "train-000.png").write_bytes(good[:60])
    (more / "images" / "notes.png").write_text("hello")
    assert add(workspace, more).new_images == 5
    assert set(workspace.quarantine()) == {"train-000.png", "notes.png"}
    (more / "images" / "train-000.png").write_bytes(good)
    assert add(workspace, more).new_images == 1
    assert set(workspace.quarantine()) == {"notes.png"}
    records = read_imports(workspace.path)
    assert [record.command for record in records] == ["add", "add", "init"]
    assert [record.images["images"] for record in records] == [6, 5, 17]
    assert set(records[1].images["unreadable"]) == {"train-000.png", "notes.png"}


def deep(folder: Path, **levels: int) -> Path:
    """16-bit images, each of one value."""
    (folder / "images").mkdir(parents=True)
    for name, level in levels.items():
        Image.fromarray(np.full((16, 16), level, np.uint16)).save(folder / "images" / f"{name}.png")
    return folder


def level(workspace: Workspace, name: str) -> int:
    (image,) = (i for i in workspace.images() if i.name == name)
    with Image.open(image.path) as opened:
        return int(opened.convert("L").getpixel((3, 3)))


def test_scale_of_16_bit_images_is_chosen_once(
    tmp_path: Path, settings: WorkspaceSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Source(deep(tmp_path / "first", dark=2000, bright=4000) / "images", classes=["rust"])
    workspace, _ = make_workspace(tmp_path / "w", source, settings)
    with workspace:
        assert workspace.intensity_max() == 4095
        result = add(workspace, deep(tmp_path / "second", again=2000, brighter=9000))
        assert result.new_images == 1  # the same content as dark.png
        assert result.ingest.clipped == ("brighter.png",)
        assert level(workspace, "dark.png") == 125
        assert level(workspace, "brighter.png") == 255
        assert workspace.intensity_max() == 4095
        with pytest.raises(SettingsError, match="4095"):
            add(workspace, tmp_path / "second", intensity_max=16_383)
        add(workspace, tmp_path / "second", intensity_max=4095)
    assert cli.run(["status", str(tmp_path / "w")]) == 0
    assert "value 4095 is white" in capsys.readouterr().out


def test_first_16_bit_images_choose_the_scale(workspace: Workspace, tmp_path: Path) -> None:
    assert workspace.intensity_max() is None
    add(workspace, deep(tmp_path / "deep", a=900))
    assert workspace.intensity_max() == 1023
    assert level(workspace, "a.png") == 224


def test_command_adds_and_reports(
    workspace: Workspace, more: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["add", workspace.path, "--images", more / "images", "--annotations", more / "train.json"]
    for new in ("6 of 6", "0 of 6"):
        assert cli.run(list(map(str, arguments))) == 0
        output = capsys.readouterr().out
        assert new in output
        assert "18 images in the pool, 5 in the test set" in output
    arguments[3] = more / "nowhere"
    assert cli.run(list(map(str, arguments[:4]))) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "nowhere" in line
