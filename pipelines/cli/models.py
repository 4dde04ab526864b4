"""Commands `dsmoe models list`, `show`, `compare`, `promote`, `refuse` and `rollback`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipelines.cli.options import CURRENT_FOLDER, ReasonOption, WorkspaceArgument
from pipelines.cli.terminal import TerminalReporter, console, line

if TYPE_CHECKING:
    from pipelines.settings.rounds import RoundSettings
    from pipelines.workspace.operating_points import OperatingPoints
    from pipelines.workspace.registry import Registry

app = typer.Typer(
    help="Models of a workspace: list, show, compare, promote, refuse, roll back.", no_args_is_help=True
)
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Id of the model.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@app.command("list")
def list_(workspace: WorkspaceArgument = CURRENT_FOLDER, as_json: JsonOption = False) -> None:
    """List the models with their metrics and provenance.

    Example: `dsmoe models list boards`
    """
    from pipelines.benchmarks.markdown import score
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        champion, cards = opened.champion(), opened.registry.cards()
        evaluations = {card.id: opened.registry.evaluation(card.id) for card in cards}
        states = {card.id: _state(opened.registry, card.id) for card in cards}
    if as_json:
        rows = [card.model_dump(mode="json") | {"state": states[card.id]} for card in cards]
        typer.echo(json.dumps({"champion": champion, "models": rows}, indent=2))
        return
    if not cards:
        line("No model yet: the first one is trained by `dsmoe round close`")
        return
    table = Table(
        "model", "parent", "dataset version", "class book", "text encoder", "mAP@.5", "mAP@.5:.95", ""
    )
    for card in cards:
        metrics = evaluations[card.id]
        table.add_row(
            card.id,
            card.parent or "-",
            card.dataset_version,
            card.class_book,
            card.training.get("text_encoder", "-"),
            score(metrics.map50 if metrics else None),
            score(metrics.map if metrics else None),
            states[card.id],
        )
    console.print(table)


def _state(registry: Registry, model: str) -> str:
    """What a model is used for: champion, held for approval, shadow, or its last decision."""
    if model == registry.champion():
        return "champion"
    if model == registry.held():
        return "held for approval"
    if model == registry.shadow():
        return "shadow"
    events = registry.events(model)
    past = {"refuse": "refused", "promote": "earlier champion", "rollback": "earlier champion"}
    return past.get(events[-1].action, "") if events else ""


@app.command("show")
def show(
    model: ModelArgument,
    workspace: WorkspaceArgument = CURRENT_FOLDER,
) -> None:
    """Show a model's provenance and metrics, and which of its parts and experts are in use.

    Example: `dsmoe models show r2-1f0c77aa boards`
    """
    from pipelines.benchmarks.markdown import score
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        card, registry = opened.registry.card(model), opened.registry
        metrics, parts, events = registry.evaluation(model), registry.parts(model), registry.events(model)
        points, settings = registry.operating_points(model), opened.settings.round
    line(f"{card.id}: round {card.round}, from {card.parent or 'no model'}, {card.created_at:%Y-%m-%d %H:%M}")
    line(f"dataset version {card.dataset_version}, class book {card.class_book}")
    if metrics is None:
        line("not evaluated")
    else:
        line(f"mAP@.5 {score(metrics.map50)}, mAP@.5:.95 {score(metrics.map)}")
    for text in _threshold_lines(points, settings):
        line(text)
    for event in events:
        line(f"{event.at:%Y-%m-%d %H:%M} {event.action} by {event.author or 'the gate'}: {event.reason}")
    if parts is None:
        line("the use of its parts was not measured: it has no experts, or no two test images have boxes")
        return
    lost = ", ".join(f"{name} {value:+.3f}" for name, value in parts.lost50.items())
    line(f"mAP@.5 lost without a part, on {parts.images} test images: {lost}")
    line(f"parts without effect: {', '.join(parts.unused) or 'none'}", "yellow" if parts.unused else "")
    idle = ", ".join(str(i + 1) for i in parts.idle_experts)
    line(f"idle experts: {idle or 'none'}", "yellow" if idle else "")
    if parts.class_information is not None:
        share = f"{parts.class_information:.0%}"
        line(f"the leading expert of a box has {share} of the information about its class")


def _threshold_lines(points: OperatingPoints | None, settings: RoundSettings) -> list[str]:
    """From which score on detections are shown to annotators, by class."""
    from pipelines.detectors.pre_annotations import UNMEASURED_SCORE

    if settings.pre_annotation_score is not None:
        return [f"pre-annotations from score {settings.pre_annotation_score:.2f} on, by the settings"]
    if points is None:
        return [f"pre-annotations from score {UNMEASURED_SCORE:.2f} on: it was not evaluated on a test set"]
    scores = ", ".join(f"{label} {score:.2f}" for label, score in points.thresholds.items())
    source = f"{points.seconds.images} timed images" if points.seconds.images else "default times"
    return [
        f"pre-annotations from score: {scores or 'no detection on the test set'}, "
        f"other classes {points.other_classes:.2f}",
        f"they are kept with a probability of {points.min_probability:.0%} or more, which takes the least "
        f"correction time ({source})",
    ]


@app.command("compare")
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Id of a model, or `champion`.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Id of the model to compare it with.")],
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Compare two models on the test set: paired differences with intervals, in total and for each class.

    Confidence, resamples and groups of images are those of the promotion gate. A model without stored
    predictions is run on the test set.

    Example: `dsmoe models compare r2-1f0c77aa champion boards`
    """
    from pipelines.rounds.model_comparison import compare_models
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened, TerminalReporter() as progress:
        content = compare_models(opened, first, second, progress.advance)
    if as_json:
        typer.echo(json.dumps(content, indent=2))
        return
    name, other = content["first"], content["second"]
    line(f"{name} minus {other}: {content['images']} test images, {content['confidence']:.0%} intervals")
    table = Table("", "metric", "boxes", name, other, "difference", "interval")
    rows = [("all", None, content["total"])]
    rows += [(label, row["boxes"], row["metrics"]) for label, row in content["classes"].items()]
    for label, boxes, metrics in rows:
        for metric, d in metrics.items():
            low, high = d["interval"]
            figures = (f"{d['first']:.3f}", f"{d['second']:.3f}", f"{d['delta']:+.3f}")
            count = "" if boxes is None else str(boxes)
            table.add_row(label, metric, count, *figures, f"{low:+.3f} to {high:+.3f}")
    console.print(table)


@app.command("promote")
def promote(
    model: ModelArgument,
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    reason: ReasonOption = "promoted by hand",
) -> None:
    """Promote a model by hand, such as one that is held for approval; the next round uses it.

    Example: `dsmoe models promote r2-1f0c77aa boards --reason "fewer false positives"`
    """
    from pipelines.detectors.mlflow_registry import mirror
    from pipelines.workspace.champion import promote_by_hand
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened, opened.locked():
        promote_by_hand(opened, model, reason)
        mirror(opened)
    line(f"champion: {model}")


@app.command("refuse")
def refuse(
    model: ModelArgument,
    reason: Annotated[str, typer.Option("--reason", help="Reason, kept in the history.")],
    workspace: WorkspaceArgument = CURRENT_FOLDER,
) -> None:
    """Refuse a candidate, such as one that is held for approval; the champion stays.

    Example: `dsmoe models refuse r2-1f0c77aa boards --reason "misses short circuits"`
    """
    from pipelines.detectors.mlflow_registry import mirror
    from pipelines.workspace.champion import refuse_by_hand
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened, opened.locked():
        refuse_by_hand(opened, model, reason)
        champion = opened.champion()
        mirror(opened)
    line(f"refused: {model}; champion: {champion or 'none'}")


@app.command("rollback")
def rollback(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    reason: ReasonOption = "rolled back by hand",
    keep_class_book: Annotated[
        bool, typer.Option("--keep-class-book", help="Leave the published class book as it is.")
    ] = False,
) -> None:
    """Promote the previous champion again, and publish the class book that it was promoted with.

    The pre-annotations of the next round are then those of the previous champion. Open tasks get them from
    `dsmoe watch`, or from `dsmoe round open`.

    Example: `dsmoe models rollback boards --reason "more false alarms"`
    """
    from pipelines.detectors.mlflow_registry import mirror
    from pipelines.workspace.champion import rollback_champion
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened, opened.locked():
        done = rollback_champion(opened, reason, keep_class_book=keep_class_book)
        mirror(opened)
    line(f"champion: {done.model}")
    if done.replaced_book is None:
        return
    line(f"class book {done.class_book} is in use again and replaces {done.replaced_book}")
    if not done.file_reset:
        line("classes.yaml differs from the replaced version and was left as it is")
    if done.class_list_changed:
        line(f"The list of classes changed: run `dsmoe classes migrate {workspace}`")
