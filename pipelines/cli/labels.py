"""Reading of labels for the commands: options, images without a box, and the account on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dsmoe_core.data.import_account import MAX_NAMED, Action, ImportAccount, Kind, Reason, Unlabelled
from pipelines.cli.terminal import console, line

if TYPE_CHECKING:
    from dsmoe_core.data.annotation_set import AnnotationSet
    from dsmoe_core.data.label_source import SplitChoice

StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse the labels, and name every entry, if one would be clipped or left out.",
    ),
]
UnlabelledOption = Annotated[
    Unlabelled | None,
    typer.Option(
        "--unlabelled",
        help="Images without a box in the labels: negative (free of defects) or ignore (not labelled).",
    ),
]
PredictionsOption = Annotated[
    bool,
    typer.Option(
        "--predictions-as-labels", help="Read boxes with a score, which a model predicted, as labels."
    ),
]


class LabelRequest(NamedTuple):
    """The options that decide how labels are read."""

    strict: bool = False
    unlabelled: Unlabelled | None = None
    accept_predictions: bool = False


def read_labels(
    path: Path,
    images: Path,
    request: LabelRequest,
    *,
    split: SplitChoice,
    default: Unlabelled | None = None,
) -> AnnotationSet:
    """Read labels, and decide how their images without a box count.

    The option decides, or what the labels themselves state, or ``default``. Otherwise the user is asked.
    Without a terminal the images are ignored. The account says which.

    Args:
        split: which split is read where the labels have several.
        default: how images without a box count without the option; None: ask.

    Raises:
        FormatError: the labels cannot be read, or are refused by ``request``.
    """
    from dsmoe_core.data.formats import read_annotations
    from dsmoe_core.data.label_source import ReadOptions

    options = ReadOptions(split, request.accept_predictions, request.strict)
    annotations = read_annotations(path, images, options)
    count = len(annotations.images_without_box)
    if not count:
        return annotations
    chosen = request.unlabelled or (Unlabelled.NEGATIVE if annotations.states_negatives else default)
    return annotations.counting_unlabelled(chosen or _ask(path, count, len(annotations.images)))


def _ask(path: Path, count: int, images: int) -> Unlabelled:
    """Ask how images without a box count; ``ignore`` where there is no terminal."""
    if not (sys.stdin.isatty() and console.is_terminal):
        return Unlabelled.IGNORE
    line(f"{path}: {count} of {images} images have no box.")
    line("negative: they were checked and are free of defects. ignore: they were not labelled.")
    while True:
        reply = typer.prompt("negative or ignore?", default=Unlabelled.IGNORE.value)
        if reply.strip().lower() in list(Unlabelled):
            return Unlabelled(reply.strip().lower())


def show_accounts(accounts: Mapping[str, ImportAccount], file: Path | None = None) -> None:
    """Print the accounts of an import: a line for labels that were taken completely, or tables.

    Args:
        accounts: by what was imported.
        file: that has the whole accounts.
    """
    for name, account in accounts.items():
        _show_account(name, account)
    if file is not None and any(_is_notable(account) for account in accounts.values()):
        line(f"the whole account is in {file}")


def _is_notable(account: ImportAccount) -> bool:
    return bool(account.entries or account.notes)


def _show_account(name: str, account: ImportAccount) -> None:
    with_box = account.images_taken - (
        account.images_without_box if account.unlabelled is not Unlabelled.IGNORE else 0
    )
    line(
        f"labels of {name}: {account.images_in} images, {with_box} taken with boxes, "
        f"{account.images_without_box} without a box; {account.boxes_in} boxes"
    )
    if account.entries:
        console.print(_counts_table(account))
    if account.images_without_box:
        _show_unlabelled(account)
    for conversion, count in account.conversions.items():
        line(f"  {count} boxes: {conversion}")
    for note in account.notes:
        line(f"  {note}", "yellow")
    named = [entry for entry in account.entries if entry.reason is not Reason.UNLABELLED]
    for entry in named[:MAX_NAMED]:
        line(f"  {entry}", "yellow")
    if len(named) > MAX_NAMED:
        line(f"  and {len(named) - MAX_NAMED} more", "yellow")
    if account.images_without_labels:
        count = len(account.images_without_labels)
        line(f"  {count} images have no labels, such as {account.images_without_labels[0]}")


def _show_unlabelled(account: ImportAccount) -> None:
    count = account.images_without_box
    if account.unlabelled is Unlabelled.IGNORE:
        line(
            f"  {count} images without a box count as NOT LABELLED; "
            "--unlabelled negative counts them as free of defects",
            "bold yellow",
        )
    else:
        line(
            f"  {count} images without a box count as free of defects; "
            "--unlabelled ignore counts them as not labelled"
        )


def _counts_table(account: ImportAccount) -> Table:
    """Numbers in, taken, clipped and left out, then the number of entries for each reason."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    for column in ("in", "taken", "clipped", "left out"):
        table.add_column(column, justify="right")
    images = (account.images_in, account.images_taken, 0, account.images_left_out)
    boxes = (account.boxes_in, account.boxes_taken, account.boxes_clipped, account.boxes_left_out)
    table.add_row("images", *map(str, images))
    table.add_row("boxes", *map(str, boxes), end_section=True)
    for (kind, action, reason), count in account.by_reason().items():
        cells = ("", "", str(count), "") if action is Action.CLIPPED else ("", "", "", str(count))
        table.add_row(f"{'images' if kind is Kind.IMAGE else 'boxes'}: {reason}", *cells)
    return table
