"""dsmoe benchmark effort"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pipelines.cli.options import RESULTS, ResultsOption, SeedOption
from pipelines.cli.terminal import TerminalReporter, command_line, console, line


def effort(
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Folder with images/ and val.json, which is used.")
    ],
    model: Annotated[
        list[Path],
        typer.Option("--model", metavar="DIR", help="Folder of a model; repeat for the models of rounds."),
    ],
    max_images: Annotated[
        int, typer.Option("--max-images", min=2, help="Use the first N images of val.json.")
    ] = 120,
    seed: SeedOption = 0,
    out: ResultsOption = RESULTS,
) -> None:
    """Corrections and seconds per image, with thresholds chosen for each class and with one fixed score.

    A model must not have been trained on val.json. Nothing is trained. Writes effort.json.

    Example: `dsmoe benchmark effort --data deeppcb --model models/deeppcb_160`
    """
    from tempfile import TemporaryDirectory

    from dsmoe_core.data.external_images import read_external_images
    from dsmoe_core.data.formats import read_annotations
    from pipelines.benchmarks.effort import ASSUMPTIONS, measure_effort
    from pipelines.benchmarks.results import write_result
    from pipelines.evaluation.report.evaluated_model import load_evaluated_model
    from pipelines.settings.environment import Environment
    from pipelines.settings.workspace import MAX_PIXELS

    images = data / "images"
    parsed = read_annotations(data / "val.json", images)
    models: list[dict[str, Any]] = []
    with TemporaryDirectory(prefix="dsmoe-") as scratch, TerminalReporter() as progress:
        progress.status("reading images")
        external = read_external_images(parsed, images, Path(scratch), max_pixels=MAX_PIXELS)
        for folder in model:
            evaluated = load_evaluated_model(str(folder), None, None, Environment.read())
            truth = evaluated.rename_labels(external.labelled)[:max_images]
            progress.status(f"predicting with {evaluated.version}")
            predictions = evaluated.predict([item.image for item in truth], progress.advance)
            seconds = {
                name: measure_effort(predictions, truth, times, seed=seed)
                for name, times in ASSUMPTIONS.items()
            }
            boxes = sum(len(item.annotations) for item in truth)
            models.append({"model": evaluated.version, "images": len(truth), "boxes": boxes, **seconds})
    path = out / "effort.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_result(path, {"models": models}, command=command_line(), seeds=[seed])
    for measured in models:
        line(f"{measured['model']}: {measured['images']} images, {measured['boxes']} boxes")
        for name in ASSUMPTIONS:
            _report(name, measured[name])
    line(f"{path} is written")


def _report(name: str, measured: dict[str, Any]) -> None:
    """Print the table of one assumption, and the difference between chosen thresholds and the fixed score."""
    times = ", ".join(f"{kind} {s:.1f} s" for kind, s in measured["seconds_per_correction"].items())
    console.print(_table(measured, f"{name}: {times}"))
    difference = measured["chosen_minus_fixed"]
    low, high = difference["ci95"]
    line(f"chosen minus fixed: {difference['seconds']:+.2f} s per image, 95 % {low:+.2f} to {high:+.2f}")


def _table(measured: dict[str, Any], title: str) -> Table:
    from pipelines.benchmarks.markdown import percent

    names = ("accepted", "moved", "relabelled", "deleted", "added")
    table = Table("thresholds", "shown", *names, "s/image", title=title, title_justify="left")
    for name, row in measured["rows"].items():
        score = f" {row['score']:.2f}" if "score" in row else ""
        shares = (percent(row[column]) for column in names)
        table.add_row(f"{name}{score}", str(row["shown"]), *shares, f"{row['seconds_per_image']:.1f}")
    return table
