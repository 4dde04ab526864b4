"""dsmoe benchmark warmstart, first-model"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli import comparison
from pipelines.cli.options import Size, SizeOption
from pipelines.cli.training_command import TrainingOptions, names_of, numbers_of, training_command


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
    from pipelines.benchmarks.comparison.starts import start_sweep

    weights = warm or shipped_path(size.value)
    sweep = start_sweep(
        names_of(start), numbers_of(shares), size.value, comparison.model_builder(options.px), weights
    )
    options.run(sweep, options.budget())


@training_command("first-model", file="first_model", without=("epochs",))
def first_model(
    options: TrainingOptions,
    *,
    starts: Annotated[
        str,
        typer.Option("--starts", metavar="NAME,...", help="scratch, warm, imagenet-lite, masked, distilled."),
    ] = "scratch,warm,imagenet-lite",
    labels: Annotated[
        str, typer.Option("--labels", metavar="N,N,...", help="Numbers of labelled images.")
    ] = "40,100,200",
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            metavar="NAME=FILE",
            help="Weights of a start, such as distilled=mine.safetensors made by dsmoe pretrain; default of "
            "warm and imagenet-lite: those of the package and of dsmoe weights.",
        ),
    ] = None,
    changes: Annotated[
        str,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Training settings of all trainings, such as schedule=wsd."
        ),
    ] = "",
    tries: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            metavar="NAME=VALUE",
            help="Train each start with these training settings too; repeat the option for further ones.",
        ),
    ] = None,
    split: comparison.SplitOption = comparison.EvaluationSplit.VAL,
    inner: comparison.InnerOption = 0.5,
    size: SizeOption = Size.NANO,
) -> None:
    """The first model from few labels: initial weights next to each other, at equal minutes.

    With --split inner, a part of the labelled images is held out for the evaluation.

    Example: `dsmoe benchmark first-model --data deeppcb --starts scratch,warm --labels 40,100 --minutes 5`
    """
    from pipelines.benchmarks.comparison.starts import first_model_sweep

    names = names_of(starts)
    models = comparison.model_builder(options.px).with_training(changes)
    sweep = first_model_sweep(
        names, _counts(labels), size.value, models, _files(names, files or [], size), tries or ()
    )
    options.run(sweep, options.budget(), comparison.procedure(split, inner, options))


def _counts(text: str) -> list[int]:
    """Whole numbers above 0.

    Raises:
        SettingsError: a number is not whole.
    """
    from dsmoe_core.errors import SettingsError

    numbers = numbers_of(text)
    if any(number != int(number) for number in numbers):
        raise SettingsError(f"--labels is {text}; expected whole numbers", "Give some such as 40,100,200.")
    return [int(number) for number in numbers]


def _files(starts: list[str], given: list[str], size: Size) -> dict[str, Path]:
    """The files of the starts: the given ones, and those that are installed.

    Raises:
        SettingsError: a --file is not of the form NAME=FILE.
        PrerequisiteError: the ImageNet weights are wanted, and their package is not installed.
    """
    from dsmoe_core.errors import SettingsError
    from pipelines.settings.environment import Environment
    from pipelines.training.weights import weights_of_start

    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, (_, sign, file) in zip(given, pairs, strict=True) if not sign or not file]:
        raise SettingsError(f"--file is {wrong[0]}; expected NAME=FILE", "Correct it.")
    files = {name: Path(file) for name, _, file in pairs}
    folder = Environment.read().weights
    installed = [name for name in ("warm", "imagenet-lite") if name in starts and name not in files]
    return files | {name: weights_of_start(name, size.value, folder) for name in installed}
