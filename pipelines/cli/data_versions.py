"""Commands `dsmoe data versions` and `diff`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pipelines.cli.options import CURRENT_FOLDER, WorkspaceArgument
from pipelines.cli.terminal import console, line

if TYPE_CHECKING:
    from pipelines.workspace.dataset_diff import DatasetDiff
    from pipelines.workspace.workspace import Workspace

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def versions(workspace: WorkspaceArgument = CURRENT_FOLDER, as_json: JsonFlag = False) -> None:
    """List the dataset versions: number of images and boxes, round, class book, models trained on them.

    Example: `dsmoe data versions boards`
    """
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        rows = _version_rows(opened)
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    if not rows:
        line("there is no dataset version yet; the first one is made when a round is closed")
        return
    table = Table("version", "parent", "round", "images", "boxes", "classes", "class book", "models")
    for row in rows:
        made = "test set" if row["is_test_set"] else "-" if row["round"] is None else str(row["round"])
        table.add_row(
            row["id"],
            row["parent"] or "-",
            made,
            str(row["images"]),
            str(row["boxes"]),
            str(len(row["classes"])),
            row["class_book"],
            ", ".join(row["models"]) or "-",
        )
    console.print(table)


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="Id of the earlier version.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Id of the later version.")],
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    as_json: JsonFlag = False,
) -> None:
    """Show the images and boxes that were added, removed or changed between two dataset versions.

    Example: `dsmoe data diff 1f0c77aa9b12 5a9e01d4c3f7 boards`
    """
    from pipelines.workspace.dataset_diff import diff_versions
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        found = diff_versions(opened.dataset_version(before), opened.dataset_version(after))
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False, indent=1))
        return
    _show(found)


def _version_rows(workspace: Workspace) -> list[dict[str, Any]]:
    """One row of JSON values for each version, parents first."""
    made: dict[str, int] = {}
    for record in workspace.journal.rounds():
        done = workspace.journal.finished(record.round, "dataset")
        if done is not None:
            made.setdefault(str(done["dataset_version"]), record.round)
    cards = workspace.registry.cards()
    test_set = workspace.journal.value("test_set")
    return [
        {
            "id": version.id,
            "parent": version.parent,
            "round": made.get(version.id),
            "is_test_set": version.id == test_set,
            "images": len(version.train),
            "boxes": version.boxes,
            "classes": list(version.classes),
            "class_book": version.class_book,
            "test_set": version.test_set,
            "models": [card.id for card in cards if card.dataset_version == version.id],
        }
        for version in workspace.dataset_versions()
    ]


def _show(found: DatasetDiff) -> None:
    from pipelines.workspace.dataset_diff import MAX_NAMED

    if found.is_empty:
        line("the two versions have the same images and boxes")
        return
    for what, names in (("added", found.added), ("removed", found.removed), ("changed", found.changed)):
        line(f"images {what}: {len(names)}{_listed(names, MAX_NAMED)}")
    line(f"boxes: {found.boxes[0]} before, {found.boxes[1]} after")
    if not found.classes:
        return
    table = Table("class", "added", "removed", "moved", "lost the class", "got the class")
    for name, row in found.classes.items():
        numbers = (row.added, row.removed, row.moved, row.relabelled_from, row.relabelled_to)
        table.add_row(name, *map(str, numbers))
    console.print(table)


def _listed(names: Sequence[str], max_named: int) -> str:
    """The first names after a colon, and how many there are more."""
    if not names:
        return ""
    more = f" and {len(names) - max_named} more" if len(names) > max_named else ""
    return f": {', '.join(names[:max_named])}{more}"
