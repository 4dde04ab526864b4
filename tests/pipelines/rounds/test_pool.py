"""Why no image is left to send out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dsmoe_core.errors import WorkspaceError
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.pool import pool, require_unlabelled
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.additions import Addition, add_to_workspace
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.workspace import Workspace

Label = Callable[[LoopContext], None]


def cause(workspace: Workspace) -> str:
    with pytest.raises(WorkspaceError) as error:
        require_unlabelled(workspace)
    assert f"`dsmoe add {workspace.path} --images" in error.value.remedy
    return error.value.problem


def test_images_that_were_all_labelled_at_import_were_not_sent_out(
    tmp_path: Path, blocks: Path, settings: WorkspaceSettings
) -> None:
    source = Source(
        blocks / "images",
        annotations=coco_labels(blocks / "train.json"),
        test=coco_labels(blocks / "val.json"),
    )
    workspace, _ = make_workspace(tmp_path / "w", source, settings)
    with workspace:
        problem = cause(workspace)
    assert "12 have labels that were imported" in problem
    assert "5 are in the test set" in problem
    assert "sent out in" not in problem


def coco_labels(path: Path) -> object:
    from dsmoe_core.data.formats import read_annotations

    return read_annotations(path, path.parent / "images")


def test_images_that_were_all_sent_out(context: LoopContext, label: Label) -> None:
    workspace = context.workspace
    while pool(workspace):
        open_round(context)
        label(context)
        close_round(context)
    problem = cause(workspace)
    assert "12 were sent out in 4 rounds" in problem
    assert "imported" not in problem


def test_pool_without_any_image(tmp_path: Path, blocks: Path, settings: WorkspaceSettings) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(5):
        (images / f"val-00{number}.png").write_bytes((blocks / "images" / f"val-00{number}.png").read_bytes())
    (images / "torn.png").write_bytes(b"\x89PNG")
    workspace, _ = make_workspace(
        tmp_path / "w", Source(images, test=coco_labels(blocks / "val.json")), settings
    )
    with workspace:
        problem = cause(workspace)
    assert "the pool has no image; 5 are in the test set; 1 are in quarantine" in problem


def test_a_round_can_be_opened_after_images_were_added(
    tmp_path: Path, context: LoopContext, label: Label
) -> None:
    while pool(context.workspace):
        open_round(context)
        label(context)
        close_round(context)
    with pytest.raises(WorkspaceError):
        open_round(context)
    (tmp_path / "more").mkdir()
    Image.new("RGB", (96, 96), (10, 20, 30)).save(tmp_path / "more" / "new.png")
    add_to_workspace(context.workspace, Addition(tmp_path / "more"))
    assert open_round(context).sent == 1


def test_interrupted_opening_is_named_when_a_round_is_to_be_closed(context: LoopContext) -> None:
    context.workspace.journal.start_round(0, None)
    with pytest.raises(WorkspaceError, match="round 0"):
        close_round(context)
