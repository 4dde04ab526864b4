"""dsmoe benchmark demo, experts, latency, structured, studio, tables; the others are in comparison.py"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli import comparison
from pipelines.cli import demo as demo_command
from pipelines.cli.language_model import LlmModelOption, LlmOption
from pipelines.cli.options import (
    RESULTS,
    PxOption,
    Size,
    SizeOption,
    StudioPortOption,
    WorkspaceOption,
    open_workspace_or_none,
)
from pipelines.cli.terminal import command_line, console, line

if TYPE_CHECKING:
    from dsmoe_core.config import ModelConfig
    from pipelines.benchmarks.runtimes import Device

app = typer.Typer(
    help="Measure something and write benchmarks/results/NAME.json.",
    no_args_is_help=True,
)
for command in (
    comparison.accuracy,
    comparison.curve,
    comparison.ablation,
    comparison.warmstart,
    comparison.settings,
    comparison.words,
    comparison.held_out,
):
    app.command(command.__name__.replace("_", "-"))(command)
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of result files.")]


class Where(StrEnum):
    """What a runtime may compute on."""

    CPU = "cpu"
    CUDA = "cuda"
    ALL = "all"


DeviceOption = Annotated[Where, typer.Option("--device", help="What computes; default: all that is there.")]
BatchesOption = Annotated[
    str, typer.Option("--batches", metavar="N,N,...", help="Images at once, beside one.")
]
GpuBatchesOption = Annotated[str, typer.Option("--gpu-batches", metavar="N,N,...", help="The same on a GPU.")]


def write(name: str, out: Path, measured: dict[str, Any], seeds: list[int]) -> None:
    """Write a result file, and say where it is and what was left out."""
    from pipelines.benchmarks.results import write_result

    path = out / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_result(path, measured, command=command_line(), seeds=seeds)
    for who, why in measured.get("left_out", {}).items():
        line(f"left out: {who}: {why}", "yellow")
    line(f"{path} is written")


@app.command("demo")
def demo(
    data: demo_command.DataOption = None,
    out: OutOption = RESULTS,
    images_seen: demo_command.SeenOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With stubs; for trying it out.")] = False,
    port: StudioPortOption = 8080,
) -> None:
    """Run the whole loop and measure what each round brings.

    Example: `dsmoe benchmark demo --data deeppcb`
    """
    plan = demo_command.checked_plan({"dry_run": dry_run, "port": port}, images_seen, data)
    where = demo_command.WORKSPACES / f"benchmark-{data.resolve().name if data else 'synthetic'}"
    demo_command.run(plan, data, where, headless=True, fresh=True, as_json=out / "demo.json")


@app.command("experts")
def experts(
    size: SizeOption = Size.BASE,
    px: PxOption = None,
    repeats: Annotated[int, typer.Option("--repeats", min=3, help="Measurements of each row.")] = 25,
    seed: Annotated[int, typer.Option("--seed", help="Of the weights and the images.")] = 42,
    out: OutOption = RESULTS,
) -> None:
    """Time, activated GFLOPs and parameters by the number of active experts (the paper's Table 5).

    Example: `dsmoe benchmark experts --repeats 25`
    """
    from rich.progress import track

    from pipelines.benchmarks import experts as benchmark

    measured = benchmark.measure(
        _config(size, px),
        repeats=repeats,
        seed=seed,
        watch=lambda rounds: track(rounds, "measuring", console=console),
    )
    write("experts", out, measured, [seed])


@app.command("latency")
def latency(
    size: SizeOption = Size.BASE,
    px: PxOption = None,
    rounds: Annotated[int, typer.Option("--rounds", min=2, help="How often each runtime is timed.")] = 20,
    device: DeviceOption = Where.ALL,
    batches: BatchesOption = "4",
    gpu_batches: GpuBatchesOption = "8,32,64,128",
    compiled: Annotated[
        bool, typer.Option("--compile", help="torch.compile on the processor too; it takes minutes.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="A trained one, to compare what each runtime finds."),
    ] = None,
    workspace: WorkspaceOption = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="For --model: images/, val.json, train.json."),
    ] = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Of val.json, for --model.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Of the weights and the images.")] = 42,
    out: OutOption = RESULTS,
) -> None:
    """Time per image on every runtime of this machine; with --model, whether they find the same.

    Example: `dsmoe benchmark latency --model champion --workspace boards --data deeppcb`
    """
    from rich.progress import track

    from dsmoe_core.errors import SettingsError
    from pipelines.benchmarks import latency as benchmark
    from pipelines.benchmarks import parity
    from pipelines.evaluation.report.evaluated_model import load_evaluated_model
    from pipelines.services import factory
    from pipelines.settings import Environment

    if (model is None) != (data is None):
        raise SettingsError("--model and --data go together; one was given", "Give both, or neither.")
    config = _config(size, px)
    shown = _shown(device, _numbers(batches), _numbers(gpu_batches))
    found: dict[str, Any] = {}
    if model is not None and data is not None:
        environment = Environment.read()
        with open_workspace_or_none(workspace) as opened:
            this = load_evaluated_model(model, opened, None, environment)
            texts = factory.dsmoe_backend(opened, environment).text_encoder
            found = {"findings": parity.measure(this, texts, data, images=images, on_status=line)}
    measured = benchmark.measure(
        config,
        rounds=rounds,
        batches=shown,
        seed=seed,
        compiled=compiled,
        watch=lambda rounds: track(rounds, "measuring", console=console),
    )
    write("latency", out, {**measured, **found}, [seed])


@app.command("studio")
def studio(
    size: SizeOption = Size.BASE,
    px: PxOption = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Drawn, for the back end.")] = 300,
    clicks: Annotated[int, typer.Option("--clicks", min=1, help="Images that are clicked on.")] = 40,
    annotators: Annotated[int, typer.Option("--annotators", min=1, help="At once.")] = 8,
    seconds: Annotated[float, typer.Option("--seconds", min=2, help="They work so long.")] = 60.0,
    pushed: Annotated[int, typer.Option("--push", min=1, help="Images pushed and harvested.")] = 1000,
    many: Annotated[int, typer.Option("--push-many", min=1, help="Pushed for the peak of memory.")] = 20_000,
    port: Annotated[
        int, typer.Option("--port", min=1, max=65534, help="Port of Label Studio; the back end has the next.")
    ] = 8090,
    seed: Annotated[int, typer.Option("--seed", help="Of the weights and the images.")] = 42,
    out: OutOption = RESULTS,
) -> None:
    """Time pushes and harvests, smart clicks, and many annotators at once, on a Label Studio of its own.

    Example: `dsmoe benchmark studio --annotators 8 --seconds 60`
    """
    import tempfile

    from pipelines.benchmarks import ml_backend as benchmark
    from pipelines.benchmarks.label_studio_io import measure_exchange
    from pipelines.cli.terminal import TerminalReporter
    from pipelines.settings import Environment

    config, environment = _config(size, px), Environment.read()
    with tempfile.TemporaryDirectory(prefix="dsmoe-") as scratch, TerminalReporter() as progress:
        room = benchmark.benchmark_room(
            Path(scratch),
            config,
            environment,
            images=images,
            seed=seed,
            ports=(port, port + 1),
            on_status=progress.status,
        )
        with room as (workspace, connection):
            measured = benchmark.measure_back_end(
                workspace,
                connection,
                clicks=clicks,
                annotators=annotators,
                seconds=seconds,
                on_status=progress.status,
            )
            measured |= measure_exchange(connection, images=pushed, many=many, on_status=progress.status)
    write("studio", out, measured, [seed])


@app.command("structured")
def structured(
    llm: LlmOption = None,
    model: LlmModelOption = None,
    questions: Annotated[int, typer.Option("--questions", min=1, help="Drafts that are asked for.")] = 50,
    out: OutOption = RESULTS,
) -> None:
    """How many of a language model's first replies are valid class descriptions.

    Example: `dsmoe benchmark structured --llm http://127.0.0.1:8000/v1 --questions 50`
    """
    from pipelines.benchmarks.results import write_into
    from pipelines.benchmarks.structured_output import measure
    from pipelines.cli.terminal import TerminalReporter
    from pipelines.services.language_model.connect import connect_language_model
    from pipelines.settings import Environment

    with TerminalReporter() as progress:
        asked = connect_language_model(Environment.read(), llm, model, on_token=progress.token_progress)
        measured = measure(asked, questions, progress.advance)
    path = out / "words.json"
    write_into(path, measured, command=command_line(), seeds=[])
    line(f"{measured['structured_ok']} of {questions} answers are valid; {path} is written")


@app.command("tables")
def tables(
    document: Annotated[Path, typer.Argument(metavar="FILE.md", help="Render its tables anew.")],
    out: OutOption = RESULTS,
) -> None:
    """Render a document's tables from the result files.

    Example: `dsmoe benchmark tables README.md`
    """
    from pipelines.benchmarks.tables import update

    changed = update(document, out)
    line(f"{document}: tables {'rendered anew' if changed else 'are as they should be'}")


def _config(size: Size, px: int | None) -> ModelConfig:
    """A preset, at another size of image where one is given."""
    from dsmoe_core.config import ModelConfig
    from pipelines.settings import validate_settings

    raw = ModelConfig.of_size(size.value).model_dump()
    return validate_settings(ModelConfig, raw | ({"image_px": px} if px else {}), "the command line")


def _shown(device: Where, cpu: list[int], cuda: list[int]) -> dict[Device, list[int]]:
    """The devices that are asked for and are there, with the numbers of images that each is shown at once.

    Raises:
        PrerequisiteError: a GPU is asked for where there is none.
    """
    import torch

    from dsmoe_core.errors import PrerequisiteError

    gpu = torch.cuda.is_available()
    if device is Where.CUDA and not gpu:
        raise PrerequisiteError("PyTorch sees no GPU on this machine", "Take --device cpu.")
    shown: dict[Device, list[int]] = {}
    if device is not Where.CUDA:
        shown["cpu"] = cpu
    if device is not Where.CPU and gpu:
        shown["cuda"] = cuda
    return shown


def _numbers(text: str) -> list[int]:
    """Whole numbers with commas between.

    Raises:
        SettingsError: one is none, or is below one.
    """
    from dsmoe_core.errors import SettingsError

    numbers = [int(part) if part.strip().isdigit() else 0 for part in text.split(",")]
    if min(numbers) < 1:
        raise SettingsError(f"{text!r} is no list of whole numbers", "Give some such as 4,16.")
    return numbers
