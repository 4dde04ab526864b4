"""The workspace as a folder: whole or not there, one writer, and what came in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dsmoe_core.data import coco
from dsmoe_core.data.formats import read_annotations
from dsmoe_core.errors import ClassBookError, DataError, FormatError, SettingsError, WorkspaceError
from pipelines.ingest import Source, make_workspace
from pipelines.settings import WorkspaceSettings
from pipelines.workspace import Workspace
from tests.pipelines.blocks import COLOURS


def test_roles_and_test_set_come_from_the_files(workspace: Workspace) -> None:
    assert (len(workspace.pictures("pool")), len(workspace.pictures("test"))) == (12, 5)
    test = workspace.test_set()
    assert {p.picture.key for p in test} == {p.key for p in workspace.pictures("test")}
    assert all(p.annotations for p in test)
    assert workspace.class_book().vocabulary().names == tuple(COLOURS)
    assert (workspace.champion(), workspace.findings(), workspace.annotations(), workspace.rounds()) == (
        None,
        {},
        {},
        [],
    )


def test_a_second_process_reads_but_does_not_write(workspace: Workspace) -> None:
    other = Workspace.open(workspace.path)
    with workspace.locked():
        with workspace.locked():  # the same one may nest
            assert len(other.pictures()) == 17
        with pytest.raises(WorkspaceError, match=r"in use by another dsmoe \(process \d+\)"), other.locked():
            pass
    with other.locked():
        pass


def test_what_is_no_workspace_is_refused(tmp_path: Path, settings: WorkspaceSettings) -> None:
    with pytest.raises(WorkspaceError, match=r"is no workspace; expected dsmoe\.yaml"):
        Workspace.open(tmp_path / "nowhere")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match="is not empty and no workspace"):
        Workspace.create(tmp_path, settings)


def test_a_half_made_workspace_is_made_whole_by_the_same_command(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    Workspace.create(tmp_path / "w", settings).close()  # as far as a run gets that is killed early
    with pytest.raises(WorkspaceError, match="half made"):
        Workspace.open(tmp_path / "w")
    source = Source(blocks / "images", classes=list(COLOURS))
    make_workspace(tmp_path / "w", source, settings)[0].close()
    with Workspace.open(tmp_path / "w") as whole:
        assert len(whole.pictures("pool")) == 17
    with pytest.raises(WorkspaceError, match="is a workspace already"):
        make_workspace(tmp_path / "w", source, settings)


def test_known_labels_are_imported_and_their_pictures_are_not_sent_out(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    from pipelines.sending import pool

    source = Source(blocks / "images", annotations=coco.read(blocks / "train.json"))
    made, _ = make_workspace(tmp_path / "w", source, settings)
    with made:
        assert len(made.annotations()) == 12
        assert {p.name.split("-")[0] for p in pool(made).values()} == {"val"}


def test_damaged_pictures_go_to_quarantine_and_the_rest_goes_on(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    images = shutil.copytree(blocks / "images", tmp_path / "images")
    (images / "torn.png").write_bytes((images / "val-000.png").read_bytes()[:50])
    made, taken = make_workspace(tmp_path / "w", Source(images, classes=["rust"]), settings)
    with made:
        assert len(made.pictures("pool")) == 17
        (held,) = json.loads((made.path / "quarantine.json").read_text())
    assert held["name"] == "torn.png"
    assert held["reason"] == taken.quarantined[0].reason


def test_wrong_input_is_refused_before_anything_is_made(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    truth = coco.read(blocks / "train.json")
    target = tmp_path / "w"
    with pytest.raises(DataError, match="nowhere is not there"):
        make_workspace(target, Source(tmp_path / "nowhere", classes=["a"]), settings)
    with pytest.raises(SettingsError, match="no classes are known"):
        make_workspace(target, Source(blocks / "images"), settings)
    with pytest.raises(ClassBookError, match="plum"):
        make_workspace(
            target, Source(blocks / "images", annotations=truth, classes=["rust", "brick"]), settings
        )
    with pytest.raises(FormatError, match="is not there"):
        read_annotations(tmp_path / "nowhere.json", blocks / "images")
    with pytest.raises(FormatError, match="holds no annotations"):
        read_annotations(blocks / "images", blocks / "images")
    assert not target.exists()
