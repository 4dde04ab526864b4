"""dsmoe benchmark uncertainty"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pipelines.cli.knockout import result_path
from pipelines.cli.options import (
    RESULTS,
    BookOption,
    ResamplesOption,
    ResultsOption,
    SeedOption,
    WorkspaceOption,
    open_workspace_or_none,
)
from pipelines.cli.terminal import TerminalReporter, command_line, console, line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsmoe_core.schema import LabelledImage
    from pipelines.evaluation.report.evaluated_model import EvaluatedModel


def uncertainty(
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Folder with images/, val.json and train.json.")
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="Folder of a model, or its id in a workspace.")
    ],
    other: Annotated[
        Path | None,
        typer.Option("--other", metavar="DIR", help="Another data set, which the router should notice."),
    ] = None,
    without_class: Annotated[
        str | None,
        typer.Option(
            "--without-class",
            metavar="MODEL",
            help="A second model, trained on images without one of the classes: is that class novel to it?",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    class_book: BookOption = None,
    max_images: Annotated[
        int, typer.Option("--max-images", min=4, help="Images of val.json; of train.json at most as many.")
    ] = 100,
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    suffix: Annotated[
        str | None, typer.Option("--suffix", metavar="NAME", help="Write uncertainty_NAME.json.")
    ] = None,
    out: ResultsOption = RESULTS,
) -> None:
    """Whether each uncertainty score predicts its error, against plain entropy, and what the scores cost.

    A class is removed from the class book in turn for the score of novelty. Writes uncertainty.json.

    Example: `dsmoe benchmark uncertainty --data deeppcb --model champion --workspace boards`
    """
    from pipelines.benchmarks.results import write_result
    from pipelines.evaluation.report.evaluated_model import load_evaluated_model
    from pipelines.settings.environment import Environment
    from prompts.class_book import ClassBook

    path = result_path(out, "uncertainty", suffix)
    with open_workspace_or_none(workspace) as opened:
        book = ClassBook.load(class_book) if class_book else None
        evaluated = load_evaluated_model(model, opened, book, Environment.read())
        second = None
        if without_class is not None:
            second = load_evaluated_model(without_class, opened, None, Environment.read())
        measured = _measure(data, other, max_images, evaluated, second, resamples, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_result(path, measured, command=command_line(), seeds=[seed])
    console.print(_table(measured))
    line(f"{path} is written")


def _measure(
    data: Path,
    other: Path | None,
    max_images: int,
    model: EvaluatedModel,
    without_class: EvaluatedModel | None,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Content of the result file.

    Args:
        without_class: a model that was trained without one of the classes; None: not measured.
    """
    from tempfile import TemporaryDirectory

    from pipelines.benchmarks.uncertainty_run import measure_uncertainty, measure_unseen_class

    with TemporaryDirectory(prefix="dsmoe-") as scratch, TerminalReporter() as progress:
        progress.status("reading images")
        folder = Path(scratch)
        labelled = _sample(data, "val.json", max_images, folder / "val")
        training = _sample(data, "train.json", max_images, folder / "train")
        others = _sample(other, "val.json", max_images, folder / "other") if other else ()
        measured = measure_uncertainty(
            model,
            model.rename_labels(labelled),
            model.rename_labels(training),
            [item.image for item in others],
            resamples=resamples,
            seed=seed,
            progress=progress,
        )
        if without_class is not None:
            measured["unseen_class"] = measure_unseen_class(
                without_class, labelled, training, resamples=resamples, seed=seed, progress=progress
            )
    return measured


def _sample(data: Path, name: str, max_images: int, converted: Path) -> Sequence[LabelledImage]:
    """Images of a COCO file, evenly spaced."""
    from dataclasses import replace

    from dsmoe_core.data import coco
    from dsmoe_core.data.external_images import evenly_spaced, read_external_images
    from pipelines.settings.workspace import MAX_PIXELS

    annotations = coco.read(data / name)
    sampled = replace(annotations, images=tuple(evenly_spaced(annotations.images, max_images)))
    converted.mkdir()
    return read_external_images(sampled, data / "images", converted, max_pixels=MAX_PIXELS).labelled


def _table(measured: dict[str, Any]) -> Table:
    from pipelines.benchmarks.uncertainty_table import better_than

    table = Table(
        "score",
        "addressee",
        "errors",
        "AUROC [95 %]",
        "plain entropy",
        "1 - score",
        "better than",
        "ECE",
        title=f"{measured['model']}: {measured['images']} images, {measured['detections']} detections",
        title_justify="left",
    )
    images = {name: row for name, row in measured["images_scores"].items() if "auroc" in row}
    for name, row in (measured["scores"] | images).items():
        errors = f"{row['errors']} of {row['samples']}"
        values = (row["entropy"], row.get("low_score"))
        cells = (_value(row["auroc"], row["ci95"]), *(_value(v, None) for v in values), better_than(row))
        table.add_row(name, row.get("addressee", "annotator"), errors, *cells, _value(row["ece"], None))
    return table


def _value(value: float | None, ends: list[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")
