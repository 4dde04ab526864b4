"""Registers the benchmark commands that train, with the options that they share."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import RESULTS, finite, output_file, output_folder
from pipelines.cli.terminal import TerminalReporter, command_line, line

if TYPE_CHECKING:
    from pipelines.benchmarks.comparison.protocol import Budget
    from pipelines.benchmarks.comparison.run_store import RunStore
    from pipelines.benchmarks.comparison.selection import Procedure
    from pipelines.benchmarks.comparison.sweep import ReportCallback, Sweep

app = typer.Typer()

LabelsOption = Annotated[
    float,
    typer.Option("--labels", metavar="X", help="Share of the training images to train on.", callback=finite),
]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options that all commands of this module share."""

    data: Annotated[
        list[Path],
        typer.Option("--data", metavar="DIR", help="images/, train.json and val.json; can be repeated."),
    ]
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            min=0.01,
            help="Wall-clock time of each training; or --epochs.",
            callback=finite,
        ),
    ] = None
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the training images; or --minutes.")
    ] = None
    px: Annotated[int, typer.Option("--px", min=64, help="Side of the network's input, for all models.")] = (
        320
    )
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings per model; seeds 1, 2, ...")] = 3
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="REGEX",
            help="Part of the file names that images of one board design, line or camera share: whole groups "
            "are resampled for the intervals, and cut off for the inner split.",
        ),
    ] = None
    json: Annotated[
        Path, typer.Option("--json", metavar="FILE", help="Result file.", callback=output_file)
    ] = RESULTS
    work: Annotated[
        Path,
        typer.Option(
            "--work", metavar="DIR", help="Stored trainings; none is repeated.", callback=output_folder
        ),
    ] = Path("workspaces/benchmarks")

    @property
    def seed_numbers(self) -> Sequence[int]:
        """The seeds of the trainings."""
        return range(1, self.seeds + 1)

    @property
    def pattern(self) -> re.Pattern[str] | None:
        """The compiled --by.

        Raises:
            SettingsError: it is not a regular expression.
        """
        from pipelines.evaluation.report.groups import compile_pattern

        return None if self.by is None else compile_pattern(self.by)

    def budget(self) -> Budget:
        """The budget of each training.

        Raises:
            SettingsError: both or none of minutes and epochs are given.
        """
        from dsmoe_core.errors import SettingsError
        from pipelines.benchmarks.comparison.protocol import Budget

        if (self.minutes is None) == (self.epochs is None):
            given = "none" if self.minutes is None else "both"
            raise SettingsError(f"expected --minutes or --epochs; {given} given", "Give one of the two.")
        return Budget(self.minutes, self.epochs)

    def run(self, sweep: Sweep, budget: Budget, procedure: Procedure | None = None) -> None:
        """Run a sweep; the result file is written after each training.

        Args:
            procedure: how each entry is trained and evaluated; None: on train.json and val.json.
        """
        from pipelines.benchmarks.comparison.selection import ON_VAL
        from pipelines.benchmarks.comparison.sweep import run_sweep
        from pipelines.benchmarks.results import write_result

        def work(store: RunStore, report: ReportCallback) -> None:
            run_sweep(sweep, self.data, budget, self.seed_numbers, store, report, procedure or ON_VAL)

        self.measure(work, write_result)

    def measure(self, work: Callable[[RunStore, ReportCallback], None], write: Callable[..., None]) -> None:
        """Call ``work`` with the store of trainings and a callback that writes the result file.

        Args:
            write: ``write_result``, or ``update_result`` for a file that several commands write.
        """
        from pipelines.benchmarks.comparison.run_store import RunStore

        command, pattern = command_line(), self.pattern
        by = {} if self.by is None else {"by": self.by}

        def report(measured: dict[str, Any], seeds: Sequence[int]) -> None:
            write(self.json, {**by, **measured}, command=command, seeds=seeds)

        with TerminalReporter() as progress:
            work(RunStore(self.work, progress, by=pattern), report)
        line(f"{self.json} is written")


def training_command(
    name: str, *, file: str | None = None, seeds: int = 3, without: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command with its own options and those of ``TrainingOptions``.

    The decorated function takes ``options``, the ``TrainingOptions``, and its own options by keyword.

    Args:
        name: of the command.
        file: name of the result file, by default that of the command, without the ending.
        seeds: default of ``--seeds``.
        without: fields of ``TrainingOptions`` that the command does not have.
    """
    defaults = {"json": RESULTS / f"{file or name}.json", "seeds": seeds}
    shared = {
        field.name: field.replace(
            kind=inspect.Parameter.KEYWORD_ONLY, default=defaults.get(field.name, field.default)
        )
        for field in inspect.signature(TrainingOptions, eval_str=True).parameters.values()
        if field.name not in without
    }

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = dict(inspect.signature(function, eval_str=True).parameters)
        del own["options"]
        data = {"data": shared["data"]}
        parameters = list((data | own | shared).values())

        def command(**values: Any) -> None:
            options = TrainingOptions(**{key: values.pop(key) for key in shared})
            function(options, **values)

        command.__doc__ = function.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name)(command)
        return function

    return register


def names_of(text: str) -> list[str]:
    """The parts of a text that commas separate."""
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers_of(text: str) -> list[float]:
    """Numbers above 0 separated by commas.

    Raises:
        SettingsError: there is none, or a part is not such a number.
    """
    from dsmoe_core.errors import SettingsError

    try:
        numbers = [float(part) for part in names_of(text)]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise SettingsError(
            f"expected numbers above 0, separated by commas, not {text!r}", "Give some such as 0.05,1."
        )
    return numbers
