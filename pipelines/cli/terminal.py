"""Terminal output: progress of the steps, tables of rounds and notes, and how to sign in."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

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

from dsmoe_core.plain_text import on_one_line, visible

if TYPE_CHECKING:
    from annotate.studio.protocol import Connection
    from pipelines.rounds.policy import PolicyCheck
    from pipelines.workspace.annotation_time import Effort
    from pipelines.workspace.round_summary import Note, RoundSummary

STEP_LABELS = {
    "synthesize": "making synthetic images",
    "ingest": "importing images",
    "start": "starting Label Studio",
    "choose": "selecting the most informative images",
    "push": "sending them to Label Studio",
    "annotate": "the simulated annotator corrects",
    "people": "waiting for people to annotate",
    "harvest": "importing corrections",
    "dataset": "making the dataset version",
    "train": "training",
    "evaluate": "evaluating on the test set",
    "promote": "promoting or refusing",
    "agreement": "comparing with the champion before",
}
"""What the terminal shows for each step of a round."""


class PlainConsole(Console):
    """Console that prints every text as it is: no markup, no emoji codes, control characters as escapes.

    Names and titles are from outside, so brackets in them must not be read as markup. Styles are given as
    arguments. Tables and their titles are strings too and follow the same rule.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text without control characters; see rich."""
        return super().render_str(visible(text), **options)


console = PlainConsole()
if not console.is_terminal:
    console = PlainConsole(width=120)  # a log file has no width; the default of 80 would wrap the tables


def line(text: str, style: str = "") -> None:
    """Print a line verbatim, without wrapping."""
    console.print(text, style=style, highlight=False, soft_wrap=True)


def command_line() -> str:
    """The command line of this process, for the provenance of result files."""
    return shlex.join(["dsmoe", *sys.argv[1:]])


class TerminalReporter:
    """Progress reporter: a progress bar for the running step, one line for each finished one.

    Use it in a ``with`` statement.
    """

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
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
        """Start the progress bar of a step."""
        label = STEP_LABELS.get(name, name)
        self._started = time.monotonic()
        self._progress.reset(
            self._task, total=None, description=f"round {number}: {on_one_line(label)}", visible=True, note=""
        )

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Move the progress bar."""
        self._progress.update(self._task, completed=done, total=total, note=on_one_line(note))

    def finished(self, number: int, name: str) -> None:
        """Print the duration of a step."""
        seconds = time.monotonic() - self._started
        self._progress.update(self._task, visible=False)
        self.line(f"round {number}: {STEP_LABELS.get(name, name)}, {seconds:.1f} s", style="dim")

    def status(self, text: str) -> None:
        """Show a short text instead of a step."""
        self._progress.update(self._task, description=on_one_line(text), visible=True)

    def token_progress(self, tokens: int, reasoning: bool) -> None:
        """Show how many tokens a language model has generated of its reply."""
        text = f"the language model {'reasons' if reasoning else 'writes'}: {tokens} tokens"
        self._progress.update(self._task, description=text, visible=True)

    def line(self, text: str, style: str = "") -> None:
        """Print a line above the progress bar."""
        line(text, style)


def rounds_table(rows: Sequence[RoundSummary], title: str) -> Table:
    """Table of rounds: labelled images and boxes, outcomes of the pre-annotations, metrics, promotion."""
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
            row.reason or f"{row.state}: {row.answered} of {row.sent} annotated{_doubtful(row)}",
        )
    table.caption = (
        "in brackets: new in this round; accepted, moved, relabelled, deleted: share of the pre-annotations; "
        "added: share of the new boxes"
    )
    return table


def _doubtful(row: RoundSummary) -> str:
    return f", {row.doubtful} doubtful" if row.doubtful else ""


def effort_table(rows: Sequence[RoundSummary]) -> Table:
    """Table of annotation time: seconds per image (per box), by the most laborious action on the image."""
    from pipelines.workspace.annotation_time import KINDS

    table = Table(
        title="Annotation time: seconds per image (per box)",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    kinds = [kind for kind in KINDS if any(kind in row.effort for row in rows)]
    for name in ("round", *kinds, "agreement"):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        if row.effort:
            cells = (_seconds(row.effort.get(kind)) for kind in kinds)
            table.add_row(str(row.round), *cells, "-" if row.agreement is None else f"{row.agreement:.2f}")
    table.caption = "medians; an image counts under the most laborious action on it"
    return table


def _seconds(effort: Effort | None) -> str:
    if effort is None:
        return "-"
    per_box = "" if effort.per_box is None else f" ({effort.per_box:.1f})"
    return f"{effort.per_image:.1f}{per_box}"


def notes_table(notes: Sequence[Note], images: Mapping[str, str]) -> Table:
    """Table of the images that are doubtful or have a note.

    Args:
        notes: one row each.
        images: file name by image key.
    """
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("image", "round", "task", "doubt", "note"):
        table.add_column(name, overflow="fold")
    for note in notes:
        task = "-" if note.task_id is None else str(note.task_id)
        cells = (images.get(note.key, note.key), str(note.round), task, note.doubt or "-", note.note)
        table.add_row(*cells)
    return table


def policy_table(checks: Sequence[PolicyCheck]) -> Table:
    """Table of the policy's checks: what was compared, and the verdict."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("check", "kind", "value", "threshold", "verdict", "reason"):
        table.add_column(name, overflow="fold")
    verdicts = {
        ("trigger", True): "applies",
        ("trigger", False): "does not apply",
        ("requirement", True): "met",
        ("requirement", False): "open",
    }
    for check in checks:
        value = f"{check.value:.2f}" if isinstance(check.value, float) else str(check.value)
        verdict = "off" if check.verdict is None else verdicts[check.kind, check.verdict]
        table.add_row(check.name, check.kind, value, str(check.threshold), verdict, check.reason)
    return table


def show_sign_in(connection: Connection, page: str) -> None:
    """Print Label Studio's URL and the sign-in; the password only if the output is a terminal.

    Args:
        connection: to Label Studio.
        page: URL to print.
    """
    line(f"Label Studio: {page}")
    if not connection.username:
        line("Sign in with your own account")
    elif console.is_terminal:
        line(f"Sign in as {connection.username}, password {connection.password}")
    else:
        file = connection.document_root / "studio" / "credentials.json"
        line(f"Sign in as {connection.username}; the password is in {file}")
