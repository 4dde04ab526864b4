"""What the terminal shows: progress of steps, the table of rounds, where people sign in."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from annotate.studio.protocol import Connection
    from pipelines.workspace.annotation_time import Effort
    from pipelines.workspace.round_summary import Note, RoundSummary

STEP_LABELS = {
    "draw": "drawing a synthetic set",
    "ingest": "taking images in",
    "start": "starting Label Studio",
    "choose": "choosing the most useful images",
    "push": "sending them to the annotators",
    "annotate": "the simulated annotator corrects",
    "people": "waiting for people to annotate",
    "harvest": "taking corrections in",
    "dataset": "making the dataset version",
    "train": "training",
    "evaluate": "evaluating on the test set",
    "promote": "promoting or refusing",
}

console = Console()
if not console.is_terminal:
    console = Console(width=120)  # a log has no width of its own; 80 would cut the table


def line(text: str, style: str = "") -> None:
    """Print a line as it is: no markup in it, never cut."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def command_line() -> str:
    """The command that runs, for what is written to be traced back to it."""
    return shlex.join(["dsmoe", *sys.argv[1:]])


class TerminalReporter:
    """Shows each step while it runs, and one line when it is done. Use it in a ``with``."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, note="", visible=False)
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, number: int, name: str) -> None:
        words = STEP_LABELS.get(name, name)
        self._started = time.monotonic()
        self._progress.reset(
            self._task, total=None, description=f"round {number}: {words}", visible=True, note=""
        )

    def advance(self, done: int, total: int, note: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, note=note)

    def finished(self, number: int, name: str) -> None:
        seconds = time.monotonic() - self._started
        self._progress.update(self._task, visible=False)
        self.line(f"round {number}: {STEP_LABELS.get(name, name)}, {seconds:.1f} s", style="dim")

    def status(self, text: str) -> None:
        """A note while something starts."""
        self._progress.update(self._task, description=text, visible=True)

    def token_progress(self, tokens: int, reasoning: bool) -> None:
        """Show how many tokens a language model has generated of its reply."""
        text = f"the language model {'reasons' if reasoning else 'writes'}: {tokens} tokens"
        self._progress.update(self._task, description=text, visible=True)

    def line(self, text: str, style: str = "") -> None:
        """A line that stays."""
        line(text, style)


def rounds_table(rows: Sequence[RoundSummary], title: str) -> Table:
    """The table of rounds: what was labelled, what became of the pre-annotations, how the models fared."""
    from dsmoe_core.schema import Outcome
    from pipelines.benchmarks.markdown import percent, score

    table = Table(
        title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for name in ("round", "images", "boxes", *Outcome, "mAP @.5", "mAP @.5:.95"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("promoted?", overflow="fold")
    for row in rows:
        table.add_row(
            str(row.round),
            f"{row.images} ({row.new_images})",
            f"{row.boxes} ({row.new_boxes})",
            *(percent(row.share(outcome)) for outcome in Outcome),
            score(row.map50),
            score(row.map),
            row.reason or f"{row.state}: {row.answered} of {row.sent} came back{_in_doubt(row)}",
        )
    table.caption = (
        "in brackets: new. accepted, moved, relabelled, deleted: of the boxes shown; added: of the new"
    )
    return table


def _in_doubt(row: RoundSummary) -> str:
    return f", {row.doubtful} in doubt" if row.doubtful else ""


def effort_table(rows: Sequence[RoundSummary]) -> Table:
    """What the rounds cost people: seconds an image (seconds a box), by what had to be done."""
    from pipelines.workspace.annotation_time import KINDS

    table = Table(
        title="Effort: seconds an image (a box)",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    shown = [kind for kind in KINDS if any(kind in row.effort for row in rows)]
    for name in ("round", *shown, "agreement"):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        if row.effort:
            cells = (_seconds(row.effort.get(kind)) for kind in shown)
            table.add_row(str(row.round), *cells, "-" if row.agreement is None else f"{row.agreement:.2f}")
    table.caption = "medians; an image counts under the most laborious thing that was done on it"
    return table


def _seconds(spent: Effort | None) -> str:
    if spent is None:
        return "-"
    per_box = "" if spent.per_box is None else f" ({spent.per_box:.1f})"
    return f"{spent.per_image:.1f}{per_box}"


def notes_table(notes: Sequence[Note], images: Mapping[str, str]) -> Table:
    """Images in doubt or with a note; names by key."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("image", "round", "task", "doubt", "note"):
        table.add_column(name, overflow="fold")
    for note in notes:
        task = "-" if note.task_id is None else str(note.task_id)
        words = (images.get(note.key, note.key), str(note.round), task, note.doubt or "-", note.note)
        table.add_row(*map(Text, words))  # people write brackets: no markup
    return table


def show_sign_in(connection: Connection, page: str) -> None:
    """Where people label, and how they sign in; the password goes to a terminal only, never into a log."""
    line(f"Label Studio: {page}")
    if not connection.username:
        line("Sign in with your own account")
    elif console.is_terminal:
        line(f"Sign in as {connection.username}, password {connection.password}")
    else:
        kept = connection.document_root / "studio" / "credentials.json"
        line(f"Sign in as {connection.username}; the password is in {kept}")
