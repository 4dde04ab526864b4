"""dsmoe benchmark accuracy, curve, ablation, settings, lines

Those over initial weights are in starts.py, those over classes and their descriptions in class_comparison.py.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Size, SizeOption, Start, finite
from pipelines.cli.training_command import (
    LabelsOption,
    TrainingOptions,
    app,
    names_of,
    numbers_of,
    training_command,
)

if TYPE_CHECKING:
    from pipelines.benchmarks.comparison.dataset import InnerSplit
    from pipelines.benchmarks.comparison.models import ModelBuilder
    from pipelines.benchmarks.comparison.protocol import Budget
    from pipelines.benchmarks.comparison.selection import Procedure
    from pipelines.settings.detector import StartName

__all__ = ["app", "model_builder"]

ModelsOption = Annotated[
    str, typer.Option("--models", metavar="NAME,NAME,...", help="nano, base, yolov8n, yolov8s, ...")
]
StartOption = Annotated[
    Start | None,
    typer.Option(
        "--start",
        help="Initial weights of the image encoder; all models have their backbone, and train it only if "
        "they are random.",
    ),
]
InnerOption = Annotated[
    float,
    typer.Option(
        "--inner",
        metavar="X",
        min=0.01,
        max=0.9,
        callback=finite,
        help="Share of train.json for the inner split, on which settings and models are selected.",
    ),
]


class EvaluationSplit(StrEnum):
    """Images to evaluate on."""

    INNER = "inner"
    VAL = "val"


SplitOption = Annotated[
    EvaluationSplit,
    typer.Option(
        "--split",
        help="Images to evaluate on: inner, a part of train.json, to choose settings; or val.json.",
    ),
]


@training_command("accuracy")
def accuracy(
    options: TrainingOptions,
    *,
    models: ModelsOption = "nano,yolov8n",
    labels: LabelsOption = 1.0,
    yolo_rates: Annotated[
        str,
        typer.Option(
            "--yolo-rates",
            metavar="X,X,...",
            help="Learning rates of YOLOv8, as multiples of the one that ultralytics chooses; of several, "
            "the best on the inner split is reported.",
        ),
    ] = "1",
    converge: Annotated[
        int | None,
        typer.Option(
            "--converge",
            metavar="N",
            min=1,
            help="Train for --epochs (default: 10), twice, four times, ... as many, until the mAP@.5:.95 on "
            "the inner split has not improved N times in a row; the best training is reported.",
        ),
    ] = None,
    max_epochs: Annotated[
        int, typer.Option("--max-epochs", min=1, help="With --converge: longest training.")
    ] = 320,
    inner: InnerOption = 0.2,
) -> None:
    """DS-MoE against YOLOv8, both from random weights: same images, size, batch, NMS, budget and evaluation.

    Example: `dsmoe benchmark accuracy --data deeppcb --converge 1 --yolo-rates 0.5,1,2 --px 320 --seeds 3`
    """
    from pipelines.benchmarks.comparison.selection import Selected
    from pipelines.benchmarks.comparison.variants import detector_sweep

    rates = numbers_of(yolo_rates)
    sweep = detector_sweep(names_of(models), model_builder(options.px), labels, rates)
    if converge is not None:
        selected = Selected(_inner_split(inner, options), converge, max_epochs)
        options.run(sweep, _first_length(options, max_epochs), selected)
    elif len(rates) > 1:
        options.run(sweep, options.budget(), Selected(_inner_split(inner, options)))
    else:
        options.run(sweep, options.budget())


def procedure(split: EvaluationSplit, share: float, options: TrainingOptions) -> Procedure | None:
    """How a training is evaluated; None: on val.json.

    Args:
        share: of the training images for the inner split.
    """
    from pipelines.benchmarks.comparison.selection import OneTraining

    return OneTraining(_inner_split(share, options)) if split is EvaluationSplit.INNER else None


def _inner_split(share: float, options: TrainingOptions) -> InnerSplit:
    from pipelines.benchmarks.comparison.dataset import InnerSplit

    return InnerSplit(share, options.pattern)


def _first_length(options: TrainingOptions, max_epochs: int) -> Budget:
    """The shortest training with --converge.

    Raises:
        SettingsError: --minutes is given, or --epochs is above --max-epochs.
    """
    from dsmoe_core.errors import SettingsError
    from pipelines.benchmarks.comparison.protocol import Budget

    first = options.epochs or min(10, max_epochs)
    if options.minutes is not None or first > max_epochs:
        given = f"--minutes {options.minutes:g}" if options.minutes is not None else f"--epochs {first}"
        raise SettingsError(
            f"{given} is given with --converge and --max-epochs {max_epochs}; expected fewer --epochs",
            "Give the length of the shortest training as --epochs.",
        )
    return Budget(epochs=first)


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

    budgets = numbers_of(minutes)
    detectors = detector_sweep(names_of(models), model_builder(options.px), labels)
    options.run(with_budgets(detectors, budgets), Budget(minutes=max(budgets, default=0)))


@training_command("ablation")
def ablation(
    options: TrainingOptions,
    *,
    rows: Annotated[
        str, typer.Option("--rows", metavar="ROW,ROW,...", help="A to F, and no-tiny-head.")
    ] = "A,B,C,D,E,F,no-tiny-head",
    labels: LabelsOption = 1.0,
    start: StartOption = Start.SCRATCH,
    size: SizeOption = Size.NANO,
) -> None:
    """Rows A to F of the paper's ablation, all with the tiny-object head, and the default (E) without it.

    Rows A and B have another image encoder, so they need --start scratch.

    Example: `dsmoe benchmark ablation --data aluminium --rows E,F,no-tiny-head --epochs 30`
    """
    from pipelines.benchmarks.comparison.variants import ablation_sweep

    models = started_models(options.px, size, start)
    options.run(ablation_sweep(names_of(rows), size.value, models, labels), options.budget())


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
    start: StartOption = None,
    size: SizeOption = Size.NANO,
    split: SplitOption = EvaluationSplit.INNER,
    inner: InnerOption = 0.2,
) -> None:
    """The effect of settings: trained without a change, and with each given change.

    Without --start, all start from the weights that `dsmoe init` uses.

    Example: `dsmoe benchmark settings --data deeppcb --try training.matrix_rate=0 --labels 0.16 --epochs 24`
    """
    from pipelines.benchmarks.comparison.variants import settings_sweep

    sweep = settings_sweep(changes, size.value, started_models(options.px, size, start), labels)
    options.run(sweep, options.budget(), procedure(split, inner, options))


@training_command("lines", without=("minutes", "epochs"))
def lines(
    options: TrainingOptions,
    *,
    images_seen: Annotated[
        int,
        typer.Option(
            "--images-seen",
            metavar="N",
            min=1,
            help="Images of all lines together that the joint model is shown; each single model is shown as "
            "many of its line as the joint model was.",
        ),
    ] = 10_000,
    changes: Annotated[
        list[str] | None,
        typer.Option("--try", metavar="NAME=VALUE", help="Also a joint model with other settings."),
    ] = None,
    common: Annotated[
        str, typer.Option("--set", metavar="NAME=VALUE", help="Settings of all models, in the form of --try.")
    ] = "",
    labels: LabelsOption = 1.0,
    start: StartOption = Start.SCRATCH,
    size: SizeOption = Size.NANO,
) -> None:
    """One model for several product lines, each a --data, against one model for each line.

    Example: `dsmoe benchmark lines --data deeppcb --data neu_det --set training.set_sampling=even --try
    model.routing=image`
    """
    from pipelines.benchmarks.comparison.product_lines import run_lines
    from pipelines.benchmarks.comparison.variants import changed_models, require_shares
    from pipelines.benchmarks.results import write_result

    require_shares([labels])
    builder = started_models(options.px, size, start)
    models = changed_models(changes or (), size.value, builder, common)
    options.measure(
        lambda store, report: run_lines(
            models,
            options.data,
            images_seen,
            options.seed_numbers,
            store,
            report,
            start=builder.start,
            train_share=labels,
            common=common,
        ),
        write_result,
    )


def model_builder(px: int) -> ModelBuilder:
    """Builder of the models, with the packaged text encoder and the YOLO environment of this machine."""
    from pipelines.benchmarks.comparison.models import ModelBuilder
    from pipelines.benchmarks.comparison.yolo.yolo_model import yolo_python
    from pipelines.detectors.ds_moe import dsmoe_backend
    from pipelines.settings.environment import Environment

    environment = Environment.read()
    text_encoder = dsmoe_backend(None, environment).text_encoder
    return ModelBuilder(px, text_encoder, yolo_python(environment.environments))


def started_models(px: int, size: Size, start: Start | None) -> ModelBuilder:
    """Builder of models with initial weights of the image encoder.

    Args:
        size: of the models, for the packaged warm start.
        start: None: the weights that `dsmoe init` uses.

    Raises:
        PrerequisiteError: the package with the weights is not installed, or has none for the size.
    """
    from dsmoe_core.warm_start.checkpoint import require_file
    from pipelines.settings.environment import Environment
    from pipelines.training.weights import default_start, weights_of_start

    name: StartName = start.value if start else default_start(size.value)
    if name == "scratch":
        return model_builder(px).with_start(name, None)
    weights = weights_of_start(name, size.value, Environment.read().weights)
    require_file(weights)
    return model_builder(px).with_start(name, weights)
