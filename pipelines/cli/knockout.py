"""dsmoe benchmark knockout"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pipelines.cli.evaluate import TruthOption
from pipelines.cli.options import (
    RESULTS,
    BookOption,
    ModelArgument,
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


GroupsOption = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="REGEX",
        help="Part of the file names that images of one board design, line or camera share: whole groups "
        "are resampled, and the experts are compared with the groups.",
    ),
]


def knockout(
    model: ModelArgument,
    annotations: TruthOption,
    images: Annotated[Path, typer.Option("--images", metavar="DIR", help="Folder of the images.")],
    workspace: WorkspaceOption = None,
    class_book: BookOption = None,
    by: GroupsOption = None,
    max_images: Annotated[
        int | None,
        typer.Option("--max-images", min=2, help="Evaluate N annotated images only, evenly spaced."),
    ] = None,
    resamples: ResamplesOption = 1000,
    permutations: Annotated[
        int, typer.Option("--permutations", min=20, help="Permutations of the test of the experts.")
    ] = 200,
    seed: SeedOption = 0,
    suffix: Annotated[
        str | None,
        typer.Option("--suffix", metavar="NAME", help="Write knockout_NAME.json and routing_NAME.json."),
    ] = None,
    out: ResultsOption = RESULTS,
) -> None:
    """Evaluate a trained model with one part neutralised at a time, and the specialisation of its experts.

    Nothing is retrained. Writes knockout.json and routing.json.

    Example: `dsmoe benchmark knockout champion --workspace boards --annotations val.json --images photos`
    """
    from tempfile import TemporaryDirectory

    from dsmoe_core.data.external_images import evenly_spaced, read_external_images
    from dsmoe_core.data.formats import read_annotations
    from pipelines.benchmarks.knockout import KnockoutSettings, measure_knockouts
    from pipelines.evaluation.report.evaluated_model import load_evaluated_model
    from pipelines.settings.environment import Environment
    from pipelines.settings.workspace import MAX_PIXELS
    from prompts.class_book import ClassBook

    paths = [result_path(out, name, suffix) for name in ("knockout", "routing")]
    parsed = read_annotations(annotations, images)
    settings = KnockoutSettings(resamples, permutations, seed)
    with open_workspace_or_none(workspace) as opened, TemporaryDirectory(prefix="dsmoe-") as scratch:
        book = ClassBook.load(class_book) if class_book else None
        evaluated = load_evaluated_model(model, opened, book, Environment.read())
        max_pixels = opened.settings.max_pixels if opened else MAX_PIXELS
        with TerminalReporter() as progress:
            progress.status("reading images")
            external = read_external_images(parsed, images, Path(scratch), max_pixels=max_pixels)
            truth = evaluated.rename_labels(evenly_spaced(external.labelled, max_images))
            progress.status("evaluating without each part")
            effects, routing = measure_knockouts(
                evaluated, truth, settings, groups=_groups(by, truth), progress=progress.advance
            )
    _report(effects, routing, paths, seed)


def result_path(folder: Path, name: str, suffix: str | None) -> Path:
    """Path of a result file.

    Raises:
        typer.BadParameter: the suffix is not made of letters, digits and underscores.
    """
    if suffix is None:
        return folder / f"{name}.json"
    if not (suffix.isascii() and suffix.isidentifier()):
        raise typer.BadParameter(f"--suffix is {suffix!r}; expected letters, digits and underscores")
    return folder / f"{name}_{suffix}.json"


def _report(effects: dict[str, Any], routing: dict[str, Any], paths: Sequence[Path], seed: int) -> None:
    """Write both result files, and print them."""
    from pipelines.benchmarks.results import write_result

    for path, measured in zip(paths, (effects, routing), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_result(path, measured, command=command_line(), seeds=[seed])
    console.print(_table(effects))
    for sentence in _routing_sentences(routing):
        line(sentence)
    if effects["boxes"] and effects["map50"] == 0:
        line("mAP@.5 is 0: no box is found, so no part can lose anything; train the model longer", "yellow")
    line(f"{paths[0]} and {paths[1]} are written")


def _groups(by: str | None, truth: Sequence[LabelledImage]) -> list[str] | None:
    """The group of each image."""
    from pipelines.evaluation.report.groups import compile_pattern, group_names

    return None if by is None else group_names(compile_pattern(by), truth)


def _table(effects: dict[str, Any]) -> Table:
    title = f"{effects['model']}: mAP@.5 {effects['map50']:.3f}, mAP@.5:.95 {effects['map']:.3f}"
    table = Table(
        "knock-out",
        "mAP@.5",
        "lost [95 %]",
        "mAP@.5:.95",
        "lost [95 %]",
        title=title,
        title_justify="left",
    )
    for row in effects["rows"]:
        style = None if row["carries"] else "dim"
        lost50, lost = (_lost(row[name]) for name in ("lost50", "lost"))
        table.add_row(
            row["description"], f"{row['map50']:.3f}", lost50, f"{row['map']:.3f}", lost, style=style
        )
    return table


def _lost(comparison: dict[str, Any] | None) -> str:
    if comparison is None:
        return "-"
    low, high = comparison["ci95"]
    return f"{comparison['delta']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _routing_sentences(routing: dict[str, Any]) -> list[str]:
    """What the experts say about class and group, and which experts are idle."""
    if not routing["experts"]:
        return ["There is no box, or the model has no router: the routing is not measured."]
    sentences = [
        _information("class", routing["by_class"]),
        f"Experts that lead at no box: {', '.join(str(i + 1) for i in routing['idle']) or 'none'}.",
    ]
    if routing["by_group"] is not None:
        sentences.insert(1, _information("group", routing["by_group"]))
    return sentences


def _information(of: str, values: dict[str, float]) -> str:
    return (
        f"The leading expert has {values['share']:.1%} of the information about the {of} of a box "
        f"(by chance {values['by_chance']:.1%}, p = {values['p']:.3f})."
    )
