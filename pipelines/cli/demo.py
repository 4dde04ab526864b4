"""Command `dsmoe demo`."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.input_size import with_input_size
from pipelines.cli.options import (
    AblationOption,
    BudgetOption,
    DemoDataOption,
    DemoImagesSeenOption,
    DryRunOption,
    EncoderOption,
    PortOption,
    SeedOption,
    Size,
    Start,
    SyntheticKindChoice,
    TinyHeadOption,
    finite,
    output_file,
    output_folder,
    with_model_options,
)
from pipelines.cli.terminal import TerminalReporter, command_line, console, line, rounds_table, show_sign_in
from pipelines.cli.weights import install_imagenet_lite

if TYPE_CHECKING:
    from annotate.studio.protocol import Connection
    from pipelines.rounds.context import LoopContext
    from pipelines.rounds.simulated_annotator import Annotate
    from pipelines.settings.demo import DemoPlan
    from pipelines.settings.environment import Environment
    from pipelines.workspace.round_summary import RoundSummary
    from pipelines.workspace.workspace import Workspace

WORKSPACES = Path("workspaces")


class Annotator(StrEnum):
    """Who annotates in a demo."""

    SIMULATED = "simulated"
    HUMAN = "human"


MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes", min=0.01, callback=finite, help="Time of each training; replaces --images-seen."
    ),
]
DemoPxOption = Annotated[
    int | None,
    typer.Option(
        "--px", help="Side of the network's input; default: 256, with --data chosen from the images."
    ),
]
DemoStartOption = Annotated[
    Start | None,
    typer.Option("--start", help="Initial weights of the image encoder; default: as dsmoe init."),
]


def demo(
    data: DemoDataOption = None,
    synthetic: Annotated[
        SyntheticKindChoice,
        typer.Option("--synthetic", help="Kind of synthetic images to make where --data is not given."),
    ] = SyntheticKindChoice.PCB,
    workspace: Annotated[
        Path | None,
        typer.Option(
            "--workspace",
            metavar="DIR",
            callback=output_folder,
            help="Folder of the workspace; default: workspaces/demo-NAME, the same for the same data.",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=0, help="Pre-annotated rounds, after round 0.")] = 3,
    budget: BudgetOption = 40,
    annotator: Annotated[
        Annotator, typer.Option("--annotator", help="Who annotates: a simulated annotator, or you.")
    ] = Annotator.SIMULATED,
    headless: Annotated[bool, typer.Option("--headless", help="Stop Label Studio in the end.")] = False,
    as_json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Result file to write.", callback=output_file),
    ] = None,
    seed: SeedOption = 42,
    images_seen: DemoImagesSeenOption = None,
    minutes: MinutesOption = None,
    px: DemoPxOption = None,
    start: DemoStartOption = None,
    encoder: EncoderOption = None,
    ablation: AblationOption = None,
    tiny_head: TinyHeadOption = None,
    port: PortOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the workspace and start again.")] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Run the whole loop on one data set: annotate, train, evaluate, promote, four times by default.

    The same command resumes an interrupted demo. The URL of Label Studio is printed as soon as the first
    pre-annotated images are there.

    Example: `dsmoe demo --data deeppcb --headless --json out.json`
    """
    raw: dict[str, Any] = {
        "rounds": rounds,
        "budget": budget,
        "annotator": annotator.value,
        "seed": seed,
        "synthetic": synthetic.value,
        "dry_run": dry_run,
        "start": None if start is None else start.value,
        "training": {} if encoder is None else {"encoder": encoder.value},
        "model": with_model_options({} if px is None else {"image_px": px}, ablation, tiny_head),
    }
    optional = {"port": port, "minutes": minutes}
    raw |= {name: value for name, value in optional.items() if value is not None}
    plan = make_plan(raw, images_seen, data)
    run(plan, data, workspace, headless=headless, fresh=fresh, as_json=as_json, port=port)


def make_plan(raw: dict[str, Any], images_seen: str | None, data: Path | None) -> DemoPlan:
    """Validate the plan of a demo.

    First weights are chosen as by ``dsmoe init``, and for a data folder the input size and the strides of the
    head, too. Synthetic images are easier than real ones: their defaults are a smaller input and shorter
    trainings.

    Args:
        raw: fields of the plan.
        images_seen: training length of each round, separated by commas; None for the default.
        data: data folder; None for synthetic images.

    Raises:
        SettingsError: a field is invalid.
        DataError: the labels of the data folder cannot be read.
        PrerequisiteError: the ImageNet weights are wanted, and their package is not installed.
    """
    from pipelines.settings.demo import SYNTHETIC_IMAGES_SEEN, SYNTHETIC_PX, DemoPlan
    from pipelines.settings.detector import backbone_of_start, default_encoder
    from pipelines.settings.validation import validate_settings
    from pipelines.training.weights import default_start

    model = raw.get("model", {})
    start = raw.get("start") or default_start("nano", model.get("ablation"))
    if data is None:
        raw = {"images_seen": SYNTHETIC_IMAGES_SEEN, **raw}
        model = {"image_px": SYNTHETIC_PX, **model}
    elif not raw.get("dry_run"):
        model = _with_input_size(model, data)
    if images_seen is not None:
        raw = {**raw, "images_seen": images_seen.split(",")}
    training = {"encoder": default_encoder(start), **raw.get("training", {})}
    model = {**model, "backbone": backbone_of_start(start)}
    raw = {**raw, "start": start, "model": model, "training": training}
    plan = validate_settings(DemoPlan, raw, "the command line")
    if plan.start == "imagenet-lite" and not plan.dry_run:
        install_imagenet_lite()
    return plan


def _with_input_size(model: dict[str, Any], data: Path) -> dict[str, Any]:
    """The model settings, with an input size, tiles and head strides for the images where none are given."""
    from dsmoe_core.config import ModelConfig
    from dsmoe_core.data.formats import read_annotations

    images, labels = data / "images", data / "train.json"
    sets = [read_annotations(labels, images)] if labels.is_file() and images.is_dir() else []
    complete = {**ModelConfig.of_size(Size.NANO.value).model_dump(), **model}
    fitting = with_input_size(
        complete, model.get("image_px"), images, sets, choose_strides="head_strides" not in model
    )
    return {**fitting, **model}


def run(
    plan: DemoPlan,
    data: Path | None,
    path: Path | None,
    *,
    headless: bool,
    fresh: bool,
    as_json: Path | None,
    port: int | None,
) -> None:
    """Run a demo, or resume it.

    Args:
        plan: rounds, budget, model and training.
        data: data folder; None for synthetic images.
        path: folder of the workspace; None for the default.
        headless: stop Label Studio at the end.
        fresh: delete the workspace first.
        as_json: result file to write; None for no file.
        port: of Label Studio; None for the default, or the next free one if that is taken.
    """
    from pipelines import demo as loop
    from pipelines.benchmarks.results import write_result
    from pipelines.services import factory
    from pipelines.settings.environment import Environment

    started, environment = time.monotonic(), Environment.read()
    with TerminalReporter() as progress:
        prepared = loop.prepare_data(data, plan, WORKSPACES, progress)
        path = path or WORKSPACES / f"{'dry-run' if plan.dry_run else 'demo'}-{prepared.name}"
        if fresh:
            loop.delete_workspace(path, environment)
        workspace = loop.open_workspace(path, prepared, plan, progress)
    with workspace, workspace.locked():
        server = factory.labelling_server(workspace, environment, port)
        try:
            if not loop.is_finished(workspace, plan):
                with loop.record_duration(workspace, started):
                    _run_rounds(workspace, plan, prepared.folder, environment, port)
            else:
                line("This demo is finished. `--fresh` deletes it and starts again.", "bold")
            _print_rounds(workspace, plan)
            if as_json is not None:
                result = loop.result(workspace, prepared, plan)
                write_result(as_json, result, command=command_line(), seeds=[plan.seed])
            if server is not None and not headless:
                _keep_label_studio(workspace, environment, port)
        finally:
            if server is not None and headless:
                server.stop()


def _run_rounds(
    workspace: Workspace, plan: DemoPlan, folder: Path, environment: Environment, port: int | None
) -> None:
    """Run the remaining rounds of the plan, and open one more for visitors."""
    from pipelines import demo as loop
    from pipelines.services import factory

    line(f"Demo in {workspace.path}: {plan.rounds + 1} rounds with {plan.budget} images each")
    with TerminalReporter() as progress:
        progress.step(len(workspace.rounds()), "start")
        context, connection = factory.loop_context(workspace, environment, progress, progress.status, port)
        annotate = _annotator(plan, folder, context, connection, progress)
        for row in loop.run_rounds(context, plan, annotate):
            progress.line(f"round {row.round}: {row.reason}", style="bold")
        waiting = loop.open_next_round(context)
        if waiting is not None:
            progress.line(
                f"round {waiting.round} is open: {waiting.sent} pre-annotated images for you to try"
            )


def _annotator(
    plan: DemoPlan,
    folder: Path,
    context: LoopContext,
    connection: Connection | None,
    progress: TerminalReporter,
) -> Annotate:
    """The annotator of the plan, which prints Label Studio's URL and the sign-in in time."""
    from pipelines import demo as loop
    from pipelines.rounds.simulated_annotator import load_truth, simulated_annotator

    page = f"{connection.url}/projects/{context.project()}/" if connection else "the stub"

    def announce(row: RoundSummary) -> None:
        if connection:
            progress.line(
                f"round {row.round}: {row.sent} images are pre-annotated; have a look", style="bold"
            )
            show_sign_in(connection, page)

    if plan.annotator == "simulated":
        truth = load_truth(folder / "train.json", context.workspace)
        return loop.announced(simulated_annotator(truth), announce)
    if connection:
        show_sign_in(connection, page)
    return loop.wait_for_annotators(
        lambda row: progress.line(f"round {row.round}: {row.sent} images wait for you at {page}")
    )


def _print_rounds(workspace: Workspace, plan: DemoPlan) -> None:
    """Print the table of rounds."""
    from pipelines.workspace.round_summary import explain_rounds

    rows = workspace.rounds()
    note = " (dry run with stubs: the metrics mean nothing)" if plan.dry_run else ""
    console.print(rounds_table(rows, f"{workspace.settings.title}{note}"))
    for sentence in explain_rounds(rows):
        line(sentence)
    weights = {
        "warm": "the packaged weights, trained on other synthetic images",
        "imagenet-lite": "EfficientNet-Lite0's weights, trained on ImageNet",
    }
    if plan.start in weights and not plan.dry_run:
        line(f"The image encoder started from {weights[plan.start]}.")
    line(f"workspace: {workspace.path}")


def _keep_label_studio(workspace: Workspace, environment: Environment, port: int | None) -> None:
    """Make sure that Label Studio runs, and print how to sign in and how to stop it."""
    from pipelines.services import factory

    with TerminalReporter() as progress:
        context, connection = factory.loop_context(workspace, environment, progress, progress.status, port)
        project = context.project()
    if connection is not None:
        show_sign_in(connection, f"{connection.url}/projects/{project}/")
        line(f"Stop it with `dsmoe services down {workspace.path}`")
