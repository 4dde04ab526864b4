"""dsmoe benchmark accuracy, curve, ablation, warmstart, settings, words, held-out: trainings in a row"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import RESULTS, Size, SizeOption
from pipelines.cli.terminal import TerminalReporter, command_line, line

if TYPE_CHECKING:
    from dsmoe_core.text_encoders.protocol import TextEncoder
    from pipelines.benchmarks.comparison.protocol import Budget
    from pipelines.benchmarks.comparison.run_store import Bouts
    from pipelines.benchmarks.comparison.sweep import Field, Report

DataOption = Annotated[
    list[Path],
    typer.Option("--data", metavar="DIR", help="images/, train.json, val.json; may be given several times."),
]
MinutesOption = Annotated[
    float | None, typer.Option("--minutes", min=0.01, help="Wall-clock of each training; or --epochs.")
]
EpochsOption = Annotated[
    int | None, typer.Option("--epochs", min=1, help="Passes over the training images; or --minutes.")
]
SideOption = Annotated[int, typer.Option("--px", min=64, help="Side of the image, for everybody.")]
SeedsOption = Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each; seeds 1, 2, ...")]
WorkOption = Annotated[
    Path, typer.Option("--work", metavar="DIR", help="Where trainings are kept; none is done twice.")
]
WithOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        metavar="DIR",
        help="Another set as --data, trained on along with it in its own words; may be given several times.",
    ),
]
SubsetsOption = Annotated[
    float,
    typer.Option(
        "--class-subsets", min=0.0, max=1.0, help="Share of steps that ask about a part of the classes alone."
    ),
]
ModelsOption = Annotated[
    str, typer.Option("--models", metavar="NAME,NAME,...", help="nano, base, yolov8n, yolov8s, ...")
]
LabelsOption = Annotated[
    float, typer.Option("--labels", metavar="X", help="Share of the training images that all learn from.")
]
WORK = Path("workspaces/benchmarks")
JsonOption = Annotated[Path, typer.Option("--json", metavar="FILE", help="Result file.")]


def accuracy(
    data: DataOption,
    models: ModelsOption = "nano,yolov8n",
    labels: LabelsOption = 1.0,
    minutes: MinutesOption = None,
    epochs: EpochsOption = None,
    px: SideOption = 320,
    seeds: SeedsOption = 3,
    as_json: JsonOption = RESULTS / "accuracy.json",
    work: WorkOption = WORK,
) -> None:
    """DS-MoE against YOLOv8, both from scratch: same images, size, budget and judge.

    Example: `dsmoe benchmark accuracy --data deeppcb --minutes 8 --px 320 --seeds 3`
    """
    _run(_detectors(models, px, labels), data, _budget(minutes, epochs), seeds, work, as_json)


def curve(
    data: DataOption,
    minutes: Annotated[
        str, typer.Option("--minutes", metavar="X,X,...", help="Wall-clock; a training for each.")
    ] = "1,2,4,8",
    models: ModelsOption = "nano,yolov8n",
    labels: LabelsOption = 1.0,
    px: SideOption = 320,
    seeds: SeedsOption = 1,
    as_json: JsonOption = RESULTS / "curve.json",
    work: WorkOption = WORK,
) -> None:
    """Learning curves: what each detector reaches in so many minutes, trained for just that long.

    Example: `dsmoe benchmark curve --data deeppcb --labels 0.16 --minutes 1,2,4,8`
    """
    from pipelines.benchmarks.comparison import variants
    from pipelines.benchmarks.comparison.protocol import Budget

    budgets = _numbers(minutes)
    field = variants.curve(_detectors(models, px, labels), budgets)
    _run(field, data, Budget(minutes=max(budgets)), seeds, work, as_json)


def ablation(
    data: DataOption,
    rows: Annotated[
        str, typer.Option("--rows", metavar="ROW,ROW,...", help="A to F, and no-tiny-head.")
    ] = "A,B,C,D,E,F,no-tiny-head",
    size: SizeOption = Size.NANO,
    minutes: MinutesOption = None,
    epochs: EpochsOption = None,
    px: SideOption = 320,
    seeds: SeedsOption = 3,
    as_json: JsonOption = RESULTS / "ablation.json",
    work: WorkOption = WORK,
) -> None:
    """Rows A to F of the paper's ablation, with the tiny-object head, and F without it.

    Example: `dsmoe benchmark ablation --data aluminium --rows E,F,no-tiny-head --epochs 30`
    """
    from pipelines.benchmarks.comparison import variants

    field = variants.ablation(_names(rows), size.value, px, _texts())
    _run(field, data, _budget(minutes, epochs), seeds, work, as_json)


def warmstart(
    data: DataOption,
    shares: Annotated[
        str, typer.Option("--shares", metavar="X,X,...", help="Of the training images.")
    ] = "0.05,0.2,1.0",
    start: Annotated[
        str, typer.Option("--start", metavar="NAME,NAME", help="scratch, warm.")
    ] = "scratch,warm",
    warm: Annotated[
        Path | None, typer.Option("--warm", metavar="FILE", help="A warm start; by default what ships.")
    ] = None,
    size: SizeOption = Size.NANO,
    minutes: MinutesOption = None,
    epochs: EpochsOption = None,
    px: SideOption = 320,
    seeds: SeedsOption = 3,
    as_json: JsonOption = RESULTS / "warmstart.json",
    work: WorkOption = WORK,
) -> None:
    """What a warm start brings where few images are labelled.

    Example: `dsmoe benchmark warmstart --data neu_det --minutes 4`
    """
    from dsmoe_core.warm_start.checkpoint import shipped_path
    from pipelines.benchmarks.comparison import variants

    numbers, first = _numbers(shares), warm or shipped_path(size.value)
    field = variants.starts(_names(start), numbers, size.value, px, _texts(), first)
    _run(field, data, _budget(minutes, epochs), seeds, work, as_json)


def settings(
    data: DataOption,
    tries: Annotated[
        list[str],
        typer.Option(
            "--try",
            metavar="NAME=VALUE",
            help="Settings as in dsmoe.yaml under `detector`, with spaces between; may be given "
            "several times, for a training each.",
        ),
    ],
    labels: LabelsOption = 1.0,
    size: SizeOption = Size.NANO,
    minutes: MinutesOption = None,
    epochs: EpochsOption = None,
    px: SideOption = 320,
    seeds: SeedsOption = 3,
    as_json: JsonOption = RESULTS / "settings.json",
    work: WorkOption = WORK,
) -> None:
    """What a setting is worth: trained as it is, and with each of those that are tried.

    Example: `dsmoe benchmark settings --data deeppcb --try training.matrix_rate=0 --labels 0.16 --epochs 24`
    """
    from pipelines.benchmarks.comparison import variants

    field = variants.settings(tries, size.value, px, _texts(), labels)
    _run(field, data, _budget(minutes, epochs), seeds, work, as_json)


def words(
    data: DataOption,
    size: SizeOption = Size.NANO,
    anew: Annotated[
        bool, typer.Option("--anew", help="Also train with the other words, four trainings a seed.")
    ] = False,
    along: WithOption = None,
    class_subsets: SubsetsOption = 0.0,
    minutes: MinutesOption = None,
    epochs: EpochsOption = None,
    px: SideOption = 320,
    seeds: SeedsOption = 3,
    as_json: JsonOption = RESULTS / "words.json",
    work: WorkOption = WORK,
) -> None:
    """Do the words matter? One model, asked in right, bare, random and swapped words.

    Example: `dsmoe benchmark words --data deeppcb --with aluminium --class-subsets 0.5 --minutes 8`
    """
    from pipelines.benchmarks.comparison import text_ablation as benchmark
    from pipelines.benchmarks.comparison import variants
    from pipelines.benchmarks.results import write_into

    make = partial(variants.ours, size.value, px, _texts(), class_subsets=class_subsets)
    budget = _budget(minutes, epochs)
    with TerminalReporter() as progress:
        benchmark.run(
            lambda vocabulary: make(words=vocabulary),
            data,
            budget,
            range(1, seeds + 1),
            _bouts(work, progress),
            _report(as_json, write_into),
            anew=anew,
            along=along or (),
        )
    line(f"{as_json} is written")


def held_out(
    data: DataOption,
    label: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="CLASS", help="Which one; default: that with most boxes to learn from."
        ),
    ] = None,
    along: WithOption = None,
    class_subsets: SubsetsOption = 0.0,
    size: SizeOption = Size.NANO,
    minutes: MinutesOption = None,
    epochs: EpochsOption = None,
    px: SideOption = 320,
    seeds: SeedsOption = 3,
    as_json: JsonOption = RESULTS / "words.json",
    work: WorkOption = WORK,
) -> None:
    """Train without a class, describe it, and look for it: in right words, its bare name, random words.

    Example: `dsmoe benchmark held-out --data deeppcb --class mousebite --epochs 30 --seeds 3`
    """
    from pipelines.benchmarks.comparison import variants
    from pipelines.benchmarks.comparison import zero_shot as benchmark
    from pipelines.benchmarks.results import write_into

    contestant = variants.ours(size.value, px, _texts(), class_subsets=class_subsets)
    budget = _budget(minutes, epochs)
    with TerminalReporter() as progress:
        bouts, report = _bouts(work, progress), _report(as_json, write_into)
        series = range(1, seeds + 1)
        benchmark.run(contestant, data, label, budget, series, bouts, report, along=along or ())
    line(f"{as_json} is written")


def _run(field: Field, data: Sequence[Path], budget: Budget, seeds: int, work: Path, as_json: Path) -> None:
    """All bouts; the result file is written after each."""
    from pipelines.benchmarks.comparison import sweep
    from pipelines.benchmarks.results import write_result

    with TerminalReporter() as progress:
        bouts = _bouts(work, progress)
        sweep.run(field, data, budget, range(1, seeds + 1), bouts, _report(as_json, write_result))
    line(f"{as_json} is written")


def _bouts(work: Path, progress: TerminalReporter) -> Bouts:
    from pipelines.benchmarks.comparison.run_store import RESAMPLES, Bouts

    return Bouts(work, progress, RESAMPLES)


def _report(path: Path, write: Callable[..., None]) -> Report:
    command = command_line()

    def report(measured: dict[str, Any], seeds: Sequence[int]) -> None:
        write(path, measured, command=command, seeds=seeds)

    return report


def _texts() -> TextEncoder:
    """The packaged text encoder; a comparison takes no workspace's."""
    from pipelines.services import factory
    from pipelines.settings import Environment

    return factory.dsmoe_backend(None, Environment.read()).text_encoder


def _budget(minutes: float | None, epochs: int | None) -> Budget:
    """One of the two.

    Raises:
        SettingsError: both or none is given.
    """
    from dsmoe_core.errors import SettingsError
    from pipelines.benchmarks.comparison.protocol import Budget

    if (minutes is None) == (epochs is None):
        raise SettingsError("a budget is --minutes or --epochs, one of them", "Give one of the two.")
    return Budget(minutes, epochs)


def _detectors(models: str, px: int, labels: float) -> Field:
    """Ours and YOLOv8, which has an environment of its own."""
    from pipelines.benchmarks.comparison import variants
    from pipelines.benchmarks.comparison.yolo import yolo_model as yolo
    from pipelines.settings import Environment

    interpreter = yolo.built(Environment.read().environments)
    return variants.detectors(_names(models), px, _texts(), interpreter, labels)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[float]:
    """Numbers with commas between.

    Raises:
        SettingsError: one is none.
    """
    from dsmoe_core.errors import SettingsError

    try:
        return [float(part) for part in _names(text)]
    except ValueError as error:
        raise SettingsError(f"{text!r} is no list of numbers", "Give some such as 0.05,1.") from error
