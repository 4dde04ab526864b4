"""dsmoe benchmark loop"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import (
    RESULTS,
    PxOption,
    ResultsOption,
    SeedOption,
    finite,
    output_folder,
)
from pipelines.cli.terminal import TerminalReporter, command_line, line
from pipelines.cli.weights import install_imagenet_lite

if TYPE_CHECKING:
    from pipelines.benchmarks.loop import RunWatch

DEFAULT_PORT = 8391


def loop(
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="images/, train.json (the pool) and val.json.")
    ],
    rounds: Annotated[int, typer.Option("--rounds", min=2, help="Unattended rounds.")] = 3,
    budget: Annotated[int, typer.Option("--budget", min=1, help="Images of a round.")] = 40,
    px: PxOption = 192,
    images_seen: Annotated[
        int, typer.Option("--images-seen", min=1, help="Length of each training, in images.")
    ] = 500,
    test_images: Annotated[int, typer.Option("--test-images", min=6, help="Images of val.json.")] = 120,
    wrong: Annotated[
        float,
        typer.Option(
            "--wrong", min=0.2, max=1.0, help="Share of wrong boxes in the bad round.", callback=finite
        ),
    ] = 0.3,
    seeds: Annotated[
        int, typer.Option("--seeds", min=2, help="Trainings that differ by their seed only.")
    ] = 5,
    seed: SeedOption = 42,
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Port of Label Studio.")
    ] = DEFAULT_PORT,
    work: Annotated[
        Path,
        typer.Option("--work", metavar="DIR", help="Workspace and parts done.", callback=output_folder),
    ] = Path("workspaces/benchmark-loop"),
    out: ResultsOption = RESULTS,
) -> None:
    """Unattended rounds, a round of wrong labels, a rollback, and candidates by chance; it resumes.

    Example: `dsmoe benchmark loop --data deeppcb --rounds 3`
    """
    from pipelines.benchmarks.loop import LoopBenchmark, LoopPlan
    from pipelines.benchmarks.results import write_result
    from pipelines.settings.environment import Environment
    from pipelines.training.weights import default_start

    path = out / "loop.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    save = partial(write_result, path, command=command_line(), seeds=[seed])
    plan = LoopPlan(
        rounds=rounds,
        budget=budget,
        px=px or 192,
        images_seen=images_seen,
        test_images=test_images,
        wrong=wrong,
        seeds=seeds,
        seed=seed,
        start=default_start("nano"),
    )
    if plan.start == "imagenet-lite":
        install_imagenet_lite()
    with TerminalReporter() as progress:
        benchmark = LoopBenchmark(data, work, plan, Environment.read(), port, progress, _watch(port))
        measured = benchmark.measure(save)
    _report(measured)
    line(f"{path} is written")


def _report(measured: dict[str, Any]) -> None:
    """Print the decision about each candidate."""
    for row in [*measured["unattended"]["rounds"], measured["bad_round"]]:
        line(f"round {row['round']}: {row['reason']}")
    chance = measured["chance"]
    line(f"by chance: {chance['promoted']} of {chance['trials']} candidates promoted")


def _watch(port: int) -> RunWatch:
    """The loop of `dsmoe watch --simulated`."""
    from pipelines.cli.stop_signals import StopSignals
    from pipelines.cli.watch import run_loop

    def run(path: Path, rounds: int, truth: Path) -> None:
        run_loop(path, (1.0, rounds, truth), port, StopSignals(), once=False, quiet=True)

    return run
