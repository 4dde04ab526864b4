"""dsmoe benchmark demo, experts, latency, structured, studio, tables

Others are in comparison.py, class_comparison.py, starts.py, knockout.py, label_errors.py, loop_benchmark.py
and ranking.py.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli import (
    class_comparison,  # noqa: F401 - registers its commands, as starts does
    comparison,
    knockout,
    label_errors,
    loop_benchmark,
    ranking,
    starts,  # noqa: F401
)
from pipelines.cli import demo as demo_command
from pipelines.cli import demos as demos_command
from pipelines.cli import effort as effort_command
from pipelines.cli import scale as scale_command
from pipelines.cli import uncertainty as uncertainty_command
from pipelines.cli.language_model import LlmModelOption, LlmOption
from pipelines.cli.options import (
    MAX_SEED,
    RESULTS,
    DemoDataOption,
    DemoImagesSeenOption,
    PortOption,
    PxOption,
    ResultsOption,
    Size,
    SizeOption,
    WorkspaceOption,
    finite,
    open_workspace_or_none,
)
from pipelines.cli.terminal import TerminalReporter, command_line, console, line

if TYPE_CHECKING:
    from dsmoe_core.config import ModelConfig
    from pipelines.benchmarks.runtimes import Device

app = typer.Typer(help="Measure something and write benchmarks/results/NAME.json.", no_args_is_help=True)
app.add_typer(comparison.app)  # without a name: its commands are commands of this app
app.command("knockout")(knockout.knockout)
app.command("label-errors")(label_errors.benchmark)
app.command("effort")(effort_command.effort)
app.command("uncertainty")(uncertainty_command.uncertainty)
app.command("ranking")(ranking.ranking)
app.command("loop")(loop_benchmark.loop)
app.command("scale")(scale_command.scale)
app.command("demos")(demos_command.demos)


class DeviceChoice(StrEnum):
    """Devices to measure on."""

    CPU = "cpu"
    CUDA = "cuda"
    ALL = "all"


SeedOption = Annotated[
    int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of the weights and the images.")
]
DeviceOption = Annotated[
    DeviceChoice, typer.Option("--device", help="Device to measure on; default: all devices of this machine.")
]
StudioPortOption = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=1,
        max=65534,
        help="Port of Label Studio; default: 8090, or the next free one. The ML backend uses one above.",
    ),
]
BatchesOption = Annotated[
    str, typer.Option("--batches", metavar="N,N,...", help="Batch sizes on the CPU, in addition to 1.")
]
GpuBatchesOption = Annotated[
    str, typer.Option("--gpu-batches", metavar="N,N,...", help="Batch sizes on a GPU, in addition to 1.")
]


def write(name: str, out: Path, measured: dict[str, Any], seeds: list[int]) -> None:
    """Write a result file, and print its path and the reasons for runtimes that were left out."""
    from pipelines.benchmarks.results import write_result

    path = out / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_result(path, measured, command=command_line(), seeds=seeds)
    for runtime, reason in measured.get("left_out", {}).items():
        line(f"left out: {runtime}: {reason}", "yellow")
    line(f"{path} is written")


@app.command("demo")
def demo(
    data: DemoDataOption = None,
    out: ResultsOption = RESULTS,
    images_seen: DemoImagesSeenOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With stubs; for trying it out.")] = False,
    port: PortOption = None,
) -> None:
    """Run the whole loop and measure the gain of each round.

    Example: `dsmoe benchmark demo --data deeppcb`
    """
    plan = demo_command.make_plan(
        {"dry_run": dry_run, **({} if port is None else {"port": port})}, images_seen, data
    )
    where = demo_command.WORKSPACES / f"benchmark-{data.resolve().name if data else 'synthetic'}"
    demo_command.run(plan, data, where, headless=True, fresh=True, as_json=out / "demo.json", port=port)


@app.command("training-speed")
def training_speed(
    encoders: Annotated[
        str,
        typer.Option("--encoders", metavar="NAME,NAME,...", help="Some of nano, base, efficientnet-lite0."),
    ] = "nano,base,efficientnet-lite0",
    px: PxOption = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images per step.")] = 4,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Most steps of each measurement.")] = 5,
    out: ResultsOption = RESULTS,
) -> None:
    """Images per second of training and prediction on this processor, by encoder and precision.

    Example: `dsmoe benchmark training-speed --encoders nano,efficientnet-lite0 --px 320`
    """
    from pipelines.benchmarks.training_speed import measure_training_speed
    from pipelines.cli.training_command import names_of

    with TerminalReporter() as progress:
        measured = measure_training_speed(names_of(encoders), px, batch, steps, progress)
    for row in measured["rows"]:
        line(
            f"{row['encoder']}, {row['image_px']} px, {row['precision']}, images per second: training "
            f"{row['training_images_per_s']:.2f}, prediction {row['prediction_images_per_s']:.2f}"
        )
    write("speed", out, measured, [])


@app.command("experts")
def experts(
    size: SizeOption = Size.BASE,
    px: PxOption = None,
    repeats: Annotated[int, typer.Option("--repeats", min=3, help="Measurements of each row.")] = 25,
    seed: SeedOption = 42,
    out: ResultsOption = RESULTS,
) -> None:
    """Time, activated GFLOPs and parameters by the number of active experts (the paper's Table 5).

    Example: `dsmoe benchmark experts --repeats 25`
    """
    from rich.progress import track

    from pipelines.benchmarks.experts import measure_experts

    measured = measure_experts(
        _config(size, px),
        repeats=repeats,
        seed=seed,
        track=lambda rounds: track(rounds, "measuring", console=console),
    )
    write("experts", out, measured, [seed])


@app.command("latency")
def latency(
    size: SizeOption = Size.BASE,
    px: PxOption = None,
    rounds: Annotated[int, typer.Option("--rounds", min=2, help="How often each runtime is timed.")] = 20,
    device: DeviceOption = DeviceChoice.ALL,
    batches: BatchesOption = "4",
    gpu_batches: GpuBatchesOption = "8,32,64,128",
    compiled: Annotated[
        bool, typer.Option("--compile", help="torch.compile on the CPU too; compiling takes minutes.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="A model to compare PyTorch, ONNX Runtime (CPU) and OpenVINO with.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="For --model: images/, val.json, train.json."),
    ] = None,
    images: Annotated[int, typer.Option("--images", min=1, help="For --model: images of val.json.")] = 100,
    seed: SeedOption = 42,
    out: ResultsOption = RESULTS,
) -> None:
    """Time per image on every runtime of this machine; with --model, also compare their detections.

    Example: `dsmoe benchmark latency --model champion --workspace boards --data deeppcb`
    """
    from rich.progress import track

    from dsmoe_core.errors import SettingsError
    from pipelines.benchmarks.latency import measure_latency
    from pipelines.benchmarks.parity import measure_parity
    from pipelines.detectors.ds_moe import dsmoe_backend
    from pipelines.evaluation.report.evaluated_model import load_evaluated_model
    from pipelines.settings.environment import Environment

    if (model is None) != (data is None):
        raise SettingsError("--model and --data go together; one was given", "Give both, or neither.")
    config = _config(size, px)
    device_batches = batches_by_device(device, _numbers(batches), _numbers(gpu_batches))
    parity: dict[str, Any] = {}
    if model is not None and data is not None:
        environment = Environment.read()
        with open_workspace_or_none(workspace) as opened:
            evaluated = load_evaluated_model(model, opened, None, environment)
            text_encoder = dsmoe_backend(opened, environment).text_encoder
            parity["findings"] = measure_parity(evaluated, text_encoder, data, images=images, on_status=line)
    measured = measure_latency(
        config,
        rounds=rounds,
        batches=device_batches,
        seed=seed,
        compiled=compiled,
        track=lambda rounds: track(rounds, "measuring", console=console),
    )
    write("latency", out, {**measured, **parity}, [seed])


@app.command("studio")
def studio(
    size: SizeOption = Size.BASE,
    px: PxOption = None,
    images: Annotated[
        int, typer.Option("--images", min=1, help="Synthetic images for the ML backend.")
    ] = 300,
    clicks: Annotated[int, typer.Option("--clicks", min=1, help="Images with smart clicks.")] = 40,
    annotators: Annotated[int, typer.Option("--annotators", min=1, help="Concurrent annotators.")] = 8,
    seconds: Annotated[
        float, typer.Option("--seconds", min=2, help="Duration of their requests.", callback=finite)
    ] = 60.0,
    pushed: Annotated[int, typer.Option("--push", min=1, help="Images to import and harvest.")] = 1000,
    memory_images: Annotated[
        int, typer.Option("--push-many", min=1, help="Images to import for the peak of memory.")
    ] = 20_000,
    port: StudioPortOption = None,
    seed: SeedOption = 42,
    out: ResultsOption = RESULTS,
) -> None:
    """Time task import, harvest, smart clicks and concurrent annotators on a Label Studio of its own.

    Example: `dsmoe benchmark studio --annotators 8 --seconds 60`
    """
    import tempfile

    from pipelines.benchmarks.label_studio_io import measure_label_studio_io
    from pipelines.benchmarks.ml_backend import benchmark_workspace, measure_ml_backend
    from pipelines.cli.terminal import TerminalReporter
    from pipelines.settings.environment import Environment

    config, environment = _config(size, px), Environment.read()
    with (
        tempfile.TemporaryDirectory(prefix="dsmoe-") as scratch,
        TerminalReporter() as progress,
        benchmark_workspace(
            Path(scratch),
            config,
            environment,
            images=images,
            seed=seed,
            port=port,
            on_status=progress.status,
        ) as (workspace, connection),
    ):
        measured = measure_ml_backend(
            workspace,
            connection,
            clicks=clicks,
            annotators=annotators,
            seconds=seconds,
            on_status=progress.status,
        )
        measured |= measure_label_studio_io(
            connection, images=pushed, memory_images=memory_images, on_status=progress.status
        )
    write("studio", out, measured, [seed])


@app.command("structured")
def structured(
    llm: LlmOption = None,
    model: LlmModelOption = None,
    requests: Annotated[int, typer.Option("--questions", min=1, help="Drafts to request.")] = 50,
    out: ResultsOption = RESULTS,
) -> None:
    """Share of a language model's first replies that are valid class descriptions.

    Example: `dsmoe benchmark structured --llm http://127.0.0.1:8000/v1 --questions 50`
    """
    from pipelines.benchmarks.results import update_result
    from pipelines.benchmarks.structured_output import measure_structured_output
    from pipelines.cli.terminal import TerminalReporter
    from pipelines.services.language_model.connect import connect_language_model
    from pipelines.settings.environment import Environment

    with TerminalReporter() as progress:
        client = connect_language_model(Environment.read(), llm, model, on_token=progress.token_progress)
        measured = measure_structured_output(client, requests, progress.advance)
    path = out / "words.json"
    update_result(path, measured, command=command_line(), seeds=[])
    line(f"{measured['structured_ok']} of {requests} replies are valid; {path} is written")


@app.command("tables")
def tables(
    document: Annotated[Path, typer.Argument(metavar="FILE.md", help="The document.")],
    out: ResultsOption = RESULTS,
) -> None:
    """Render a document's tables from the result files.

    Example: `dsmoe benchmark tables README.md`
    """
    from pipelines.benchmarks.tables import update

    changed = update(document, out)
    line(f"{document}: tables {'updated' if changed else 'unchanged'}")


@app.command("routing-chart")
def draw_routing(
    result: Annotated[Path, typer.Argument(metavar="ROUTING.json", help="Result file of `knockout`.")],
    chart: Annotated[Path, typer.Argument(metavar="CHART.svg", help="The image; replaced if it exists.")],
) -> None:
    """Draw the weight of each expert at the true boxes of each class, as an SVG image.

    Example: `dsmoe benchmark routing-chart benchmarks/results/routing.json docs/images/routing.svg`
    """
    from dsmoe_core.atomic import atomic_write
    from pipelines.benchmarks.routing_chart import check_chart_path, read_routing, routing_chart

    check_chart_path(chart)
    atomic_write(chart, routing_chart(read_routing(result)))
    line(f"{chart} is written")


def batches_by_device(device: DeviceChoice, cpu: list[int], cuda: list[int]) -> dict[Device, list[int]]:
    """The chosen devices that this machine has, with their batch sizes.

    Raises:
        PrerequisiteError: a GPU was chosen and this machine has none.
    """
    import torch

    from dsmoe_core.errors import PrerequisiteError

    has_gpu = torch.cuda.is_available()
    if device is DeviceChoice.CUDA and not has_gpu:
        raise PrerequisiteError("PyTorch finds no GPU on this machine", "Use --device cpu.")
    batches: dict[Device, list[int]] = {}
    if device is not DeviceChoice.CUDA:
        batches["cpu"] = cpu
    if device is not DeviceChoice.CPU and has_gpu:
        batches["cuda"] = cuda
    return batches


def _config(size: Size, px: int | None) -> ModelConfig:
    """A preset, with another input size if given."""
    from dsmoe_core.config import ModelConfig
    from pipelines.settings.validation import validate_settings

    raw = ModelConfig.of_size(size.value).model_dump()
    return validate_settings(ModelConfig, raw | ({"image_px": px} if px else {}), "the command line")


def _numbers(text: str) -> list[int]:
    """Whole numbers above 0, separated by commas.

    Raises:
        SettingsError: a part is not such a number.
    """
    from dsmoe_core.errors import SettingsError

    numbers = [int(part) if part.strip().isdigit() else 0 for part in text.split(",")]
    if min(numbers) < 1:
        raise SettingsError(
            f"expected whole numbers above 0, separated by commas, not {text!r}", "Give some such as 4,16."
        )
    return numbers
