"""Workspaces: creation, opening, the lock, the format version, and the images and labels they start with."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from dsmoe_core.data import coco
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.formats import read_annotations
from dsmoe_core.data.import_account import Reason
from dsmoe_core.errors import ClassBookError, DataError, FormatError, SettingsError, WorkspaceError
from pipelines import cli
from pipelines.rounds.dispatch import pool
from pipelines.settings.validation import FORMAT_VERSION
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.import_log import read_imports
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.workspace import Workspace
from tests.pipelines.blocks import COLOURS


def test_images_get_the_roles_of_the_annotation_files(workspace: Workspace) -> None:
    assert (len(workspace.images("pool")), len(workspace.images("test"))) == (12, 5)
    test = workspace.test_set()
    assert {p.image.key for p in test} == {p.key for p in workspace.images("test")}
    assert all(p.annotations for p in test)
    assert workspace.class_book().vocabulary().names == tuple(COLOURS)
    assert (workspace.champion(), workspace.predictions(), workspace.annotations(), workspace.rounds()) == (
        None,
        {},
        {},
        [],
    )


def test_second_process_can_read_and_cannot_lock(workspace: Workspace) -> None:
    other = Workspace.open(workspace.path)
    with workspace.locked():
        with workspace.locked():  # nested
            assert len(other.images()) == 17
        with pytest.raises(WorkspaceError, match=r"process \d+"), other.locked():
            pass
    with other.locked():
        pass


def test_folder_that_is_not_a_workspace_is_refused(tmp_path: Path, settings: WorkspaceSettings) -> None:
    with pytest.raises(WorkspaceError, match=r"dsmoe\.yaml"):
        Workspace.open(tmp_path / "nowhere")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match=tmp_path.name):
        Workspace.create(tmp_path, settings)


OLD_SETTINGS = """\
version: 1
title: boards
round: {budget: 40, prelabel_score: 0.3, prelabel_most: 50}
studio: {kind: label-studio, several: latest}
"""


def old_workspace(path: Path) -> Path:
    """A workspace as dsmoe 0.1 made it."""
    for folder in ("pictures", "findings"):
        (path / folder).mkdir(parents=True)
    (path / "dsmoe.yaml").write_text(OLD_SETTINGS)
    with closing(sqlite3.connect(path / "journal.sqlite")) as journal, journal:
        journal.execute("CREATE TABLE facts (name VARCHAR(64) PRIMARY KEY, value JSON NOT NULL)")
        journal.execute("INSERT INTO facts VALUES ('schema_version', '1')")
        journal.execute("CREATE TABLE pictures (key VARCHAR(64) PRIMARY KEY)")
    return path


@pytest.mark.parametrize("settings_text", [OLD_SETTINGS, "title: boards\n"])
def test_workspace_of_an_older_format_version_is_refused(tmp_path: Path, settings_text: str) -> None:
    """Also if its settings have no version: the journal has it too."""
    path = old_workspace(tmp_path / "old")
    (path / "dsmoe.yaml").write_text(settings_text)
    with pytest.raises(WorkspaceError, match=rf"version 1.*{FORMAT_VERSION}") as error:
        Workspace.open(path)
    assert "`dsmoe init`" in error.value.remedy
    assert "dsmoe 0.1" in error.value.remedy
    assert "\n" not in str(error.value)


def test_incomplete_workspace_of_an_older_format_version_is_refused(
    tmp_path: Path, settings: WorkspaceSettings
) -> None:
    path = old_workspace(tmp_path / "old")
    (path / "dsmoe.yaml").unlink()
    with pytest.raises(WorkspaceError, match=rf"version 1.*{FORMAT_VERSION}"):
        Workspace.create(path, settings)
    assert {p.name for p in path.iterdir() if p.is_dir()} == {"pictures", "findings"}


def test_workspace_of_a_newer_format_version_is_refused(workspace: Workspace) -> None:
    path = workspace.path / "dsmoe.yaml"
    path.write_text(path.read_text().replace(f"version: {FORMAT_VERSION}", "version: 99"))
    with pytest.raises(WorkspaceError, match=rf"99.*{FORMAT_VERSION}"):
        Workspace.open(workspace.path)


def test_incomplete_workspace_is_completed_by_the_same_command(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    Workspace.create(tmp_path / "w", settings).close()  # where a run stops that is killed early
    with pytest.raises(WorkspaceError, match=r"dsmoe\.yaml"):
        Workspace.open(tmp_path / "w")
    source = Source(blocks / "images", classes=list(COLOURS))
    make_workspace(tmp_path / "w", source, settings)[0].close()
    with Workspace.open(tmp_path / "w") as completed:
        assert len(completed.images("pool")) == 17
    with pytest.raises(WorkspaceError):
        make_workspace(tmp_path / "w", source, settings)


def test_imported_labels_take_their_images_out_of_the_pool(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    source = Source(blocks / "images", annotations=coco.read(blocks / "train.json"))
    workspace, _ = make_workspace(tmp_path / "w", source, settings)
    with workspace:
        assert len(workspace.annotations()) == 12
        assert {p.name.split("-")[0] for p in pool(workspace).values()} == {"val"}


def test_damaged_image_is_put_in_quarantine(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    images = shutil.copytree(blocks / "images", tmp_path / "images")
    (images / "torn.png").write_bytes((images / "val-000.png").read_bytes()[:50])
    workspace, ingest = make_workspace(tmp_path / "w", Source(images, classes=["rust"]), settings)
    with workspace:
        assert len(workspace.images("pool")) == 17
        (entry,) = json.loads((workspace.path / "quarantine.json").read_text())
    assert entry["name"] == "torn.png"
    assert entry["reason"] == ingest.quarantined[0].reason


def test_wrong_input_is_refused_before_a_folder_is_created(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    truth = coco.read(blocks / "train.json")
    target = tmp_path / "w"
    with pytest.raises(DataError, match="nowhere"):
        make_workspace(target, Source(tmp_path / "nowhere", classes=["a"]), settings)
    with pytest.raises(SettingsError, match="--classes"):
        make_workspace(target, Source(blocks / "images"), settings)
    with pytest.raises(ClassBookError, match="plum"):
        make_workspace(
            target, Source(blocks / "images", annotations=truth, classes=["rust", "brick"]), settings
        )
    with pytest.raises(FormatError, match=r"nowhere\.json"):
        read_annotations(tmp_path / "nowhere.json", blocks / "images")
    with pytest.raises(FormatError, match=str(blocks / "images")):
        read_annotations(blocks / "images", blocks / "images")
    assert not target.exists()


def in_folder(annotations: AnnotationSet, folder: str, count: int | None = None) -> AnnotationSet:
    """The annotations, with the names of the first images, by default all, moved to a folder."""
    moved = [replace(p, name=f"{folder}/{p.name}") for p in annotations.images[:count]]
    others = [] if count is None else annotations.images[count:]
    return replace(annotations, images=(*moved, *others))


def test_annotations_without_any_image_are_refused(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    test, train = coco.read(blocks / "val.json"), coco.read(blocks / "train.json")
    for number, source in enumerate(
        (
            Source(blocks / "images", test=in_folder(test, "val")),
            Source(blocks / "images", test=test, annotations=in_folder(train, "train")),
        )
    ):
        with pytest.raises(DataError, match=r" (val|train)/"):
            make_workspace(tmp_path / f"w{number}", source, settings)


def test_init_reports_annotations_without_an_image(
    tmp_path: Path, blocks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco.write(in_folder(coco.read(blocks / "val.json"), "val", count=2), tmp_path / "val.json")
    arguments = (tmp_path / "w", "--images", blocks / "images", "--test", tmp_path / "val.json", "--dry-run")
    assert cli.run(["init", *map(str, arguments)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "14 images in the pool, 3 in the test set" in output
    assert "val/val-000.png" in output
    (record,) = read_imports(tmp_path / "w")
    account = record.accounts["test"]
    assert (account.images_in, account.images_taken, account.images_left_out) == (5, 3, 2)
    assert {entry.image for entry in account.entries} == {"val/val-000.png", "val/val-001.png"}


def test_test_set_of_a_refused_run_is_replaced(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    test, train = coco.read(blocks / "val.json"), coco.read(blocks / "train.json")
    wide = replace(train, images=tuple(replace(p, width=p.width + 1) for p in train.images))
    with pytest.raises(DataError, match=r"97x96 .* 96x96"):
        make_workspace(tmp_path / "w", Source(blocks / "images", test=wide), settings)
    workspace, _ = make_workspace(tmp_path / "w", Source(blocks / "images", test=test), settings)
    with workspace:
        assert {p.name for p in workspace.images("test")} == {p.name for p in test.images}
        assert len(workspace.images("pool")) == 12


def test_labels_of_a_killed_run_are_deleted_by_the_next(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    test, train = coco.read(blocks / "val.json"), coco.read(blocks / "train.json")
    first = Source(blocks / "images", test=train, annotations=test)
    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "complete", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_workspace(tmp_path / "w", first, settings)
    make_workspace(tmp_path / "w", Source(blocks / "images", annotations=train), settings)[0].close()
    with Workspace.open(tmp_path / "w") as workspace:
        assert not workspace.images("test")
        assert workspace.test_set() == []
        assert len(workspace.images("pool")) == 17
        assert {a.image.name for a in workspace.annotations().values()} == {p.name for p in train.images}


def test_workspace_that_lost_its_settings_keeps_its_rounds(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    source = Source(blocks / "images", annotations=coco.read(blocks / "train.json"))
    workspace, _ = make_workspace(tmp_path / "w", source, settings)
    with workspace:
        workspace.journal.start_round(0, None)
    (tmp_path / "w" / "dsmoe.yaml").unlink()
    source = Source(blocks / "images", classes=list(COLOURS))
    completed, _ = make_workspace(tmp_path / "w", source, settings)
    with completed:
        assert len(completed.annotations()) == 12


def test_image_of_the_test_set_in_other_labels_is_refused(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    """Also under another name with the same content; the first run leaves nothing behind."""
    images = Path(shutil.copytree(blocks / "images", tmp_path / "images"))
    shutil.copy(images / "val-002.png", images / "z.png")
    test, train = coco.read(blocks / "val.json"), coco.read(blocks / "train.json")
    again = replace(test.images[2], name="z.png")
    for extra, name in ((test.images[1], "val-001.png"), (again, "val-002.png")):
        both = replace(train, images=(*train.images, extra))
        with pytest.raises(DataError) as error:
            make_workspace(tmp_path / "w", Source(images, annotations=both, test=test), settings)
        assert error.value.details == (name,)
    workspace, _ = make_workspace(tmp_path / "w", Source(images, annotations=train, test=test), settings)
    with workspace:
        assert (len(workspace.annotations()), len(workspace.test_set())) == (12, 5)


def test_labels_of_files_with_the_same_content_are_compared(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    images = Path(shutil.copytree(blocks / "images", tmp_path / "images"))
    train = coco.read(blocks / "train.json")
    first, second, third = train.images[:3]
    for number, name in enumerate(("same.png", "other.png", "only.png")):
        shutil.copy(images / train.images[number].name, images / f"z-{name}")
    entries = (
        *train.images[:2],
        *train.images[3:],
        replace(first, name="z-same.png"),
        replace(second, name="z-other.png", annotations=second.annotations[:0]),
        replace(third, name="z-only.png"),
    )
    source = Source(images, annotations=replace(train, images=entries))
    workspace, ingest = make_workspace(tmp_path / "w", source, settings)
    with workspace:
        labelled = {p.image.name: p.annotations for p in workspace.annotations().values()}
        (record,) = read_imports(workspace.path)
    assert set(ingest.duplicates) == {"z-same.png", "z-other.png", "z-only.png"}
    assert labelled == {entry.name: entry.annotations for entry in train.images}
    reasons = {entry.image: entry.reason for entry in record.accounts["annotations"].entries}
    assert reasons == {
        "z-same.png": Reason.SAME_CONTENT,
        "z-other.png": Reason.SAME_CONTENT_OTHER_BOXES,
    }


def test_entry_that_does_not_fit_is_left_out_alone_or_refused_by_strict(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    train = coco.read(blocks / "train.json")
    wrong = replace(train, images=(replace(train.images[0], width=97), *train.images[1:]))
    source = Source(blocks / "images", annotations=wrong, strict=True)
    with pytest.raises(FormatError) as error:
        make_workspace(tmp_path / "w", source, settings)
    assert len(error.value.details) == 1
    workspace, _ = make_workspace(tmp_path / "w", replace(source, strict=False), settings)
    with workspace:
        assert len(workspace.annotations()) == 11
        assert len(pool(workspace)) == 6
