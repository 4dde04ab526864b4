"""dsmoe benchmark accuracy, curve, ablation, warmstart, settings, words, held-out: benchmarks that train"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import RESULTS, Size, SizeOption, finite, output_file, output_folder
from pipelines.cli.terminal import TerminalReporter, command_line, line

if TYPE_CHECKING:
    from pipelines.benchmarks.comparison.models import ModelBuilder
    from pipelines.benchmarks.comparison.protocol import Budget
    from pipelines.benchmarks.comparison.run_store import RunStore
    from pipelines.benchmarks.comparison.sweep import ReportCallback, Sweep

app = typer.Typer()

WithOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        metavar="DIR",
        help="Another data set like --data to train on as well, with its own descriptions; can be repeated.",
    ),
]
SubsetsOption = Annotated[
    float,
    typer.Option(
        "--class-subsets",
        min=0.0,
        max=1.0,
        callback=finite,
        help="Share of training steps that score a subset of the classes only.",
    ),
]
ModelsOption = Annotated[
    str, typer.Option("--models", metavar="NAME,NAME,...", help="nano, base, yolov8n, yolov8s, ...")
]
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

    def run(self, sweep: Sweep, budget: Budget) -> None:
        """Run a sweep; the result file is written after each training."""
        from pipelines.benchmarks.comparison.sweep import run_sweep
        from pipelines.benchmarks.results import write_result

        self.measure(
            lambda store, report: run_sweep(sweep, self.data, budget, self.seed_numbers, store, report),
            write_result,
        )

    def measure(self, work: Callable[[RunStore, ReportCallback], None], write: Callable[..., None]) -> None:
        """Call ``work`` with the store of trainings and a callback that writes the result file.

        Args:
            write: ``write_result``, or ``update_result`` for a file that several commands write.
        """
        from pipelines.benchmarks.comparison.run_store import RunStore

        command = command_line()

        def report(measured: dict[str, Any], seeds: Sequence[int]) -> None:
            write(self.json, measured, command=command, seeds=seeds)

        with TerminalReporter() as progress:
            work(RunStore(self.work, progress), report)
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


@training_command("accuracy")
def accuracy(
    options: TrainingOptions, *, models: ModelsOption = "nano,yolov8n", labels: LabelsOption = 1.0
) -> None:
    """DS-MoE against YOLOv8, both from random weights: same images, size, budget and evaluation.

    Example: `dsmoe benchmark accuracy --data deeppcb --minutes 8 --px 320 --seeds 3`
    """
    from pipelines.benchmarks.comparison.variants import detector_sweep

    options.run(detector_sweep(_names(models), model_builder(options.px), labels), options.budget())


@training_command("curve", seeds=1, without=("minutes", "epochs"))
def curve(
    options: TrainingOptions,
    *,
    minutes: Annotated[
        str,
        typer.Option("--minutes", metavar="X,X,...", help="Wall-clock times; each has its own training."),
    ] = "1,2,4,8",
    models: ModelsOption = "nano,yolov8n",
    labels: LabelsOption = 1.0,
) -> None:
    """Learning curves: the accuracy of each detector by minutes, with a training for each.

    Example: `dsmoe benchmark curve --data deeppcb --labels 0.16 --minutes 1,2,4,8`
    """
    from pipelines.benchmarks.comparison.protocol import Budget
    from pipelines.benchmarks.comparison.variants import detector_sweep, with_budgets

    budgets = _numbers(minutes)
    detectors = detector_sweep(_names(models), model_builder(options.px), labels)
    options.run(with_budgets(detectors, budgets), Budget(minutes=max(budgets, default=0)))


@training_command("ablation")
def ablation(
    options: TrainingOptions,
    *,
    rows: Annotated[
        str, typer.Option("--rows", metavar="ROW,ROW,...", help="A to F, and no-tiny-head.")
    ] = "A,B,C,D,E,F,no-tiny-head",
    size: SizeOption = Size.NANO,
) -> None:
    """Rows A to F of the paper's ablation, all with the tiny-object head, and F without it.

    Example: `dsmoe benchmark ablation --data aluminium --rows E,F,no-tiny-head --epochs 30`
    """
    from pipelines.benchmarks.comparison.variants import ablation_sweep

    options.run(ablation_sweep(_names(rows), size.value, model_builder(options.px)), options.budget())


@training_command("warmstart")
def warmstart(
    options: TrainingOptions,
    *,
    shares: Annotated[
        str, typer.Option("--shares", metavar="X,X,...", help="Shares of the training images.")
    ] = "0.05,0.2,1.0",
    start: Annotated[
        str, typer.Option("--start", metavar="NAME,NAME", help="scratch, warm.")
    ] = "scratch,warm",
    warm: Annotated[
        Path | None,
        typer.Option("--warm", metavar="FILE", help="Weights of the warm start; default: the packaged ones."),
    ] = None,
    size: SizeOption = Size.NANO,
) -> None:
    """The effect of a warm start with few labelled images.

    Example: `dsmoe benchmark warmstart --data neu_det --minutes 4`
    """
    from dsmoe_core.warm_start.checkpoint import shipped_path
    from pipelines.benchmarks.comparison.variants import start_sweep

    weights = warm or shipped_path(size.value)
    sweep = start_sweep(_names(start), _numbers(shares), size.value, model_builder(options.px), weights)
    options.run(sweep, options.budget())


@training_command("settings")
def settings(
    options: TrainingOptions,
    *,
    changes: Annotated[
        list[str],
        typer.Option(
            "--try",
            metavar="NAME=VALUE",
            help="Settings as in dsmoe.yaml under `detector`, separated by spaces; repeat the option for "
            "further trainings.",
        ),
    ],
    labels: LabelsOption = 1.0,
    size: SizeOption = Size.NANO,
) -> None:
    """The effect of settings: trained without a change, and with each given change.

    Example: `dsmoe benchmark settings --data deeppcb --try training.matrix_rate=0 --labels 0.16 --epochs 24`
    """
    from pipelines.benchmarks.comparison.variants import settings_sweep

    options.run(settings_sweep(changes, size.value, model_builder(options.px), labels), options.budget())


@training_command("words")
def text_ablation(
    options: TrainingOptions,
    *,
    size: SizeOption = Size.NANO,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Also train with each of the other texts: 4 trainings per seed.")
    ] = False,
    extra: WithOption = None,
    class_subsets: SubsetsOption = 0.0,
) -> None:
    """One model evaluated with right, name-only, random and swapped class descriptions.

    Example: `dsmoe benchmark words --data deeppcb --with aluminium --class-subsets 0.5 --minutes 8`
    """
    from pipelines.benchmarks.comparison.text_ablation import run_text_ablation
    from pipelines.benchmarks.results import update_result

    models, budget = model_builder(options.px), options.budget()
    options.measure(
        lambda store, report: run_text_ablation(
            lambda text: models.dsmoe_preset(size.value, vocabulary=text, class_subsets=class_subsets),
            options.data,
            budget,
            options.seed_numbers,
            store,
            report,
            retrain=retrain,
            extra=extra or (),
        ),
        update_result,
    )


@training_command("held-out", file="words")
def held_out(
    options: TrainingOptions,
    *,
    label: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="The class to hold out; default: the one with most training boxes.",
        ),
    ] = None,
    extra: WithOption = None,
    class_subsets: SubsetsOption = 0.0,
    size: SizeOption = Size.NANO,
) -> None:
    """Train without a class, then detect it by its right description, its bare name and random words.

    Example: `dsmoe benchmark held-out --data deeppcb --class mousebite --epochs 30 --seeds 3`
    """
    from pipelines.benchmarks.comparison.zero_shot import run_zero_shot
    from pipelines.benchmarks.results import update_result

    model = model_builder(options.px).dsmoe_preset(size.value, class_subsets=class_subsets)
    budget = options.budget()
    options.measure(
        lambda store, report: run_zero_shot(
            model, options.data, label, budget, options.seed_numbers, store, report, extra=extra or ()
        ),
        update_result,
    )


def model_builder(px: int) -> ModelBuilder:
    """Builder of the models, with the packaged text encoder and the YOLO environment of this machine."""
    from pipelines.benchmarks.comparison.models import ModelBuilder
    from pipelines.benchmarks.comparison.yolo.yolo_model import yolo_python
    from pipelines.detectors.ds_moe import dsmoe_backend
    from pipelines.settings import Environment

    environment = Environment.read()
    text_encoder = dsmoe_backend(None, environment).text_encoder
    return ModelBuilder(px, text_encoder, yolo_python(environment.environments))


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[float]:
    """Numbers above 0 separated by commas.

    Raises:
        SettingsError: there is none, or a part is not such a number.
    """
    from dsmoe_core.errors import SettingsError

    try:
        numbers = [float(part) for part in _names(text)]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise SettingsError(
            f"expected numbers above 0, separated by commas, not {text!r}", "Give some such as 0.05,1."
        )
    return numbers
