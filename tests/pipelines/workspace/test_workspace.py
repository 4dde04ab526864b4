"""The workspace as a folder: whole or not there, one writer, and what came in."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from dsmoe_core.data import coco
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.formats import read_annotations
from dsmoe_core.errors import ClassBookError, DataError, FormatError, SettingsError, WorkspaceError
from pipelines import cli
from pipelines.settings import WorkspaceSettings
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.workspace import Workspace
from tests.pipelines.blocks import COLOURS


def test_roles_and_test_set_come_from_the_files(workspace: Workspace) -> None:
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


def test_a_second_process_reads_but_does_not_write(workspace: Workspace) -> None:
    other = Workspace.open(workspace.path)
    with workspace.locked():
        with workspace.locked():  # the same one may nest
            assert len(other.images()) == 17
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
        assert len(whole.images("pool")) == 17
    with pytest.raises(WorkspaceError, match="is a workspace already"):
        make_workspace(tmp_path / "w", source, settings)


def test_known_labels_are_imported_and_their_images_are_not_sent_out(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    from pipelines.rounds.dispatch import pool

    source = Source(blocks / "images", annotations=coco.read(blocks / "train.json"))
    made, _ = make_workspace(tmp_path / "w", source, settings)
    with made:
        assert len(made.annotations()) == 12
        assert {p.name.split("-")[0] for p in pool(made).values()} == {"val"}


def test_damaged_images_go_to_quarantine_and_the_rest_goes_on(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    images = shutil.copytree(blocks / "images", tmp_path / "images")
    (images / "torn.png").write_bytes((images / "val-000.png").read_bytes()[:50])
    made, taken = make_workspace(tmp_path / "w", Source(images, classes=["rust"]), settings)
    with made:
        assert len(made.images("pool")) == 17
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
    with pytest.raises(FormatError, match=r"nowhere\.json"):
        read_annotations(tmp_path / "nowhere.json", blocks / "images")
    with pytest.raises(FormatError, match=str(blocks / "images")):
        read_annotations(blocks / "images", blocks / "images")
    assert not target.exists()


def in_folder(names: AnnotationSet, folder: str, most: int | None = None) -> AnnotationSet:
    """The same annotations with their first images, by default all, named as if they lay in a folder."""
    moved = [replace(p, name=f"{folder}/{p.name}") for p in names.images[:most]]
    kept = [] if most is None else names.images[most:]
    return replace(names, images=(*moved, *kept))


def test_annotations_of_other_images_are_refused(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    test, train = coco.read(blocks / "val.json"), coco.read(blocks / "train.json")
    for number, source in enumerate(
        (
            Source(blocks / "images", test=in_folder(test, "val")),
            Source(blocks / "images", test=test, annotations=in_folder(train, "train")),
        )
    ):
        with pytest.raises(DataError, match=r"none of \d+ annotated images, such as (val|train)/"):
            make_workspace(tmp_path / f"w{number}", source, settings)


def test_annotations_some_of_which_have_no_image_are_told(
    tmp_path: Path, blocks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco.write(in_folder(coco.read(blocks / "val.json"), "val", most=2), tmp_path / "val.json")
    words = (tmp_path / "w", "--images", blocks / "images", "--test", tmp_path / "val.json", "--dry-run")
    assert cli.run(["init", *map(str, words)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "14 images in the pool, 3 in the test set" in said
    assert "2 of 5 images of --test are not there, such as val/val-000.png" in said


def test_another_test_set_after_one_that_was_refused_is_the_only_one(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    test, train = coco.read(blocks / "val.json"), coco.read(blocks / "train.json")
    wide = replace(train, images=tuple(replace(p, width=p.width + 1) for p in train.images))
    with pytest.raises(FormatError, match="size"):
        make_workspace(tmp_path / "w", Source(blocks / "images", test=wide), settings)
    made, _ = make_workspace(tmp_path / "w", Source(blocks / "images", test=test), settings)
    with made:
        assert {p.name for p in made.images("test")} == {p.name for p in test.images}
        assert len(made.images("pool")) == 12


def test_what_a_killed_run_took_in_is_forgotten_by_the_next(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    test, train = coco.read(blocks / "val.json"), coco.read(blocks / "train.json")
    first = Source(blocks / "images", test=train, annotations=test)
    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "complete", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_workspace(tmp_path / "w", first, settings)
    make_workspace(tmp_path / "w", Source(blocks / "images", annotations=train), settings)[0].close()
    with Workspace.open(tmp_path / "w") as made:
        assert not made.images("test")
        assert made.test_set() == []
        assert len(made.images("pool")) == 17
        assert {a.image.name for a in made.annotations().values()} == {p.name for p in train.images}


def test_a_workspace_that_lost_its_settings_keeps_its_rounds(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    source = Source(blocks / "images", annotations=coco.read(blocks / "train.json"))
    made, _ = make_workspace(tmp_path / "w", source, settings)
    with made:
        made.journal.start_round(0, None)
    (tmp_path / "w" / "dsmoe.yaml").unlink()
    again, _ = make_workspace(tmp_path / "w", Source(blocks / "images", classes=list(COLOURS)), settings)
    with again:
        assert len(again.annotations()) == 12
