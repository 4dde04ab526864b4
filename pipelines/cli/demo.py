"""dsmoe demo"""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import (
    AblationOption,
    StudioPortOption,
    SyntheticKindChoice,
    TinyHeadOption,
    with_model_options,
)
from pipelines.cli.terminal import TerminalReporter, command_line, console, line, rounds_table, show_sign_in

if TYPE_CHECKING:
    from pipelines.settings import DemoPlan
    from pipelines.workspace.workspace import Workspace

WORKSPACES = Path("workspaces")


class Annotator(StrEnum):
    """Who annotates in a demo."""

    SIMULATED = "simulated"
    HUMAN = "human"


DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="images/, train.json (pool) and val.json (test set); default: drawn ones.",
    ),
]
SeenOption = Annotated[
    str | None,
    typer.Option(
        "--images-seen", metavar="N,N,...", help="Training length of round 0, 1, ... in images shown."
    ),
]


def demo(
    data: DataOption = None,
    synthetic: Annotated[
        SyntheticKindChoice, typer.Option("--synthetic", help="What to draw without --data.")
    ] = SyntheticKindChoice.PCB,
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", help="Default: workspaces/demo-NAME, stable for each data set."),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=0, help="Rounds after the seed round.")] = 3,
    budget: Annotated[int, typer.Option("--budget", min=1, help="Images labelled in each round.")] = 40,
    annotator: Annotated[Annotator, typer.Option("--annotator", help="Who annotates.")] = Annotator.SIMULATED,
    headless: Annotated[bool, typer.Option("--headless", help="Stop Label Studio at the end.")] = False,
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of drawing, choosing and training.")] = 42,
    images_seen: SeenOption = None,
    px: Annotated[int, typer.Option("--px", help="Side of the detector's image, a multiple of 32.")] = 320,
    ablation: AblationOption = None,
    tiny_head: TinyHeadOption = None,
    port: StudioPortOption = 8080,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the workspace and start afresh.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Seconds instead of minutes: stubs, no network, no server.")
    ] = False,
) -> None:
    """Run the whole loop on one data set: label, train, judge, promote, again. Interrupted, it goes on.

    Example: `dsmoe demo --data deeppcb --headless --json out.json`
    """
    raw: dict[str, Any] = {
        "rounds": rounds,
        "budget": budget,
        "annotator": annotator.value,
        "seed": seed,
        "port": port,
        "synthetic": synthetic.value,
        "dry_run": dry_run,
        "model": with_model_options({"image_px": px}, ablation, tiny_head),
    }
    plan = checked_plan(raw, images_seen, data)
    run(plan, data, workspace, headless=headless, fresh=fresh, as_json=as_json)


def checked_plan(raw: dict[str, Any], images_seen: str | None, data: Path | None) -> DemoPlan:
    """The checked plan of a demo."""
    from pipelines.settings import SYNTHETIC_IMAGES_SEEN, DemoPlan, validate_settings

    if images_seen is not None:
        raw["images_seen"] = images_seen.split(",")
    elif data is None:
        raw["images_seen"] = SYNTHETIC_IMAGES_SEEN
    return validate_settings(DemoPlan, raw, "the command line")


def run(
    plan: DemoPlan,
    data: Path | None,
    path: Path | None,
    *,
    headless: bool,
    fresh: bool,
    as_json: Path | None,
) -> None:
    """One demo from beginning, or from where it was, to end."""
    from pipelines import demo as journey
    from pipelines.benchmarks.results import write_result
    from pipelines.services import factory
    from pipelines.settings import Environment

    started, environment = time.monotonic(), Environment.read()
    with TerminalReporter() as progress:
        prepared = journey.prepare_data(data, plan, WORKSPACES, progress)
        path = path or WORKSPACES / f"{'dry-run' if plan.dry_run else 'demo'}-{prepared.name}"
        if fresh:
            journey.delete_workspace(path, environment)
        workspace = journey.open_workspace(path, prepared, plan, progress)
    with workspace, workspace.locked():
        own = factory.labelling_server(workspace, environment, plan.port)
        try:
            if not journey.is_finished(workspace, plan):
                with journey.record_duration(workspace, started):
                    _rounds(workspace, plan, prepared.folder, environment)
            else:
                line("This demo is finished. `--fresh` starts it afresh.", "bold")
            _show(workspace, plan)
            if as_json is not None:
                measured = journey.result(workspace, prepared, plan)
                write_result(as_json, measured, command=command_line(), seeds=[plan.seed])
            if own is not None and not headless:
                _invite(workspace, environment, plan)
        finally:
            if own is not None and headless:
                own.stop()


def _rounds(workspace: Workspace, plan: DemoPlan, folder: Path, environment: Any) -> None:
    """All rounds that are still to do."""
    from pipelines import demo as journey
    from pipelines.rounds.simulated_annotator import load_truth, simulated_annotator
    from pipelines.services import factory

    with TerminalReporter() as progress:
        progress.step(len(workspace.rounds()), "start")
        context, connection = factory.loop_context(
            workspace, environment, progress, progress.status, plan.port
        )
        if plan.annotator == "simulated":
            annotate = simulated_annotator(load_truth(folder / "train.json", workspace))
        else:
            page = f"{connection.url}/projects/{context.project()}/" if connection else "the stub"
            if connection:
                show_sign_in(connection, page)
            annotate = journey.wait_for_annotators(
                lambda row: progress.line(f"round {row.round} waits for you at {page}")
            )
        for row in journey.run_rounds(context, plan, annotate):
            progress.line(f"round {row.round}: {row.reason}", style="bold")
        waiting = journey.open_next_round(context)
        if waiting is not None:
            progress.line(f"round {waiting.round} is open: pre-annotated images wait for whoever looks in")


def _show(workspace: Workspace, plan: DemoPlan) -> None:
    from pipelines.workspace.round_summary import explain_rounds

    rows = workspace.rounds()
    note = " (dry run: stubs, the figures mean nothing)" if plan.dry_run else ""
    console.print(rounds_table(rows, f"{workspace.settings.title}{note}"))
    for sentence in explain_rounds(rows):
        line(sentence)
    line(f"workspace: {workspace.path}")


def _invite(workspace: Workspace, environment: Any, plan: DemoPlan) -> None:
    """Leave Label Studio up and say where it is."""
    from pipelines.services import factory

    with TerminalReporter() as progress:
        context, connection = factory.loop_context(
            workspace, environment, progress, progress.status, plan.port
        )
        project = context.project()
    if connection is not None:
        show_sign_in(connection, f"{connection.url}/projects/{project}/")
        line(f"Stop it with `dsmoe services down {workspace.path}`")
