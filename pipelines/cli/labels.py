"""Reading of labels for the commands: options, images without a box, and the account on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dsmoe_core.data.import_account import MAX_NAMED, Action, ImportAccount, Kind, Reason, Unlabelled, counted
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
    without: Path | None = None,
) -> AnnotationSet:
    """Read labels, and decide how their images without a box count.

    The option decides, or what the labels themselves state, or ``default``. Otherwise the user is asked.
    Without a terminal the images are ignored. The account says which.

    Args:
        split: which split is read where the labels have several.
        default: how images without a box count without the option; None: ask.
        without: file or folder whose labels are not read, such as the test set in the same data set.

    Raises:
        FormatError: the labels cannot be read, or are refused by ``request``.
    """
    from dsmoe_core.data.formats import read_annotations
    from dsmoe_core.data.label_source import ReadOptions

    options = ReadOptions(split, request.accept_predictions, request.strict, without)
    annotations = read_annotations(path, images, options)
    count = len(annotations.images_without_box)
    if not count:
        return annotations
    chosen = request.unlabelled or (Unlabelled.NEGATIVE if annotations.states_negatives else default)
    return annotations.counting_unlabelled(chosen or _ask(path, count, len(annotations.images)))


def _ask(path: Path, count: int, images: int) -> Unlabelled:
    """Ask how images without a box count; ``ignore`` where there is no terminal."""
    if not is_interactive():
        return Unlabelled.IGNORE
    line(f"{path}: {count} of {images} images have no box.")
    line("negative: they were checked and are free of defects. ignore: they were not labelled.")
    while True:
        reply = typer.prompt("negative or ignore?", default=Unlabelled.IGNORE.value)
        if reply.strip().lower() in list(Unlabelled):
            return Unlabelled(reply.strip().lower())


def is_interactive() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and console.is_terminal


def show_accounts(accounts: Mapping[str, ImportAccount], file: Path | None = None) -> None:
    """Print the accounts of an import: a line for labels that were taken completely, or tables.

    Args:
        accounts: by the option that gave the labels, without dashes.
        file: that has the whole accounts.
    """
    for name, account in accounts.items():
        _show_account(name, account)
    if file is not None and any(account.entries or account.notes for account in accounts.values()):
        line(f"the whole account is in {file}")


def _show_account(name: str, account: ImportAccount) -> None:
    negatives = 0 if account.unlabelled is Unlabelled.IGNORE else account.images_without_box
    images, boxes = counted(account.images_in, "image", "images"), counted(account.boxes_in, "box", "boxes")
    line(
        f"labels of --{name}: {images} and {boxes}; {account.images_taken - negatives} images with boxes "
        f"and {negatives} without are taken"
    )
    if account.entries:
        console.print(_counts_table(account))
    if account.images_without_box:
        _show_unlabelled(account)
    for conversion, count in account.conversions.items():
        line(f"  {counted(count, 'box', 'boxes')}: {conversion}")
    for note in account.notes:
        line(f"  {note}", "yellow")
    named = [entry for entry in account.entries if entry.reason is not Reason.UNLABELLED]
    for entry in named[:MAX_NAMED]:
        line(f"  {entry}", "yellow")
    if len(named) > MAX_NAMED:
        line(f"  and {len(named) - MAX_NAMED} more", "yellow")
    unlisted = account.images_without_labels
    if unlisted and name != "test":  # the other images of a test set are the pool
        line(f"  without labels: {counted(len(unlisted), 'image', 'images')}, such as {unlisted[0]}")


def _show_unlabelled(account: ImportAccount) -> None:
    subject = f"  without a box: {counted(account.images_without_box, 'image', 'images')}"
    if account.unlabelled is Unlabelled.IGNORE:
        line(
            f"{subject}, NOT LABELLED and left out; --unlabelled negative counts them as free of defects",
            "bold yellow",
        )
    else:
        line(f"{subject}, free of defects; --unlabelled ignore leaves them out as not labelled")


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
