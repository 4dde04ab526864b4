"""dsmoe simulate"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pipelines.cli.options import Size, output_file, output_folder
from pipelines.cli.terminal import TerminalReporter, command_line, console, line
from pipelines.cli.training_command import names_of

DataArgument = Annotated[
    Path, typer.Argument(metavar="DATA", help="Folder with images/, train.json (the pool) and val.json.")
]


StrategiesOption = Annotated[
    str, typer.Option("--strategies", metavar="NAME,NAME,...", help="Acquisition functions.")
]
SeedsOption = Annotated[int, typer.Option("--seeds", min=1, help="Runs with initial sets 1, 2, ...")]
RoundsOption = Annotated[int, typer.Option("--rounds", min=1, help="Selections after the initial set.")]
BudgetOption = Annotated[int, typer.Option("--budget", min=1, help="Images of a round.")]
BudgetBoxesOption = Annotated[
    int | None, typer.Option("--budget-boxes", min=1, help="Expected boxes of a round, at most.")
]
InitialOption = Annotated[
    int | None, typer.Option("--initial", min=1, help="Images of the initial set; default: --budget.")
]
ImagesSeenOption = Annotated[
    int, typer.Option("--images-seen", min=1, help="Images shown to the network in a cycle.")
]
PxOption = Annotated[int, typer.Option("--px", min=64, help="Side of the network's input in pixels.")]
CommonOption = Annotated[
    str,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Settings as in dsmoe.yaml, separated by spaces: model., training., round.",
    ),
]


class SimulationStart(StrEnum):
    """Initial weights of the image encoder, which is frozen."""

    IMAGENET_LITE = "imagenet-lite"
    WARM = "warm"


StartOption = Annotated[
    SimulationStart | None,
    typer.Option("--start", help="Weights of the frozen image encoder; default: as dsmoe init."),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="FILE", help="File with the weights of --start, such as one made by dsmoe pretrain."
    ),
]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, help="Seeds that run at the same time.")]
WorkOption = Annotated[
    Path,
    typer.Option("--work", metavar="DIR", help="Finished cycles; none is run again.", callback=output_folder),
]
JsonOption = Annotated[
    Path,
    typer.Option("--json", metavar="FILE", help="Result file; the plot is next to it.", callback=output_file),
]


def simulate(
    data: DataArgument,
    strategies: StrategiesOption = "random,entropy,margin,core-set,typicality,ppal,pal,expected_gain",
    seeds: SeedsOption = 5,
    rounds: RoundsOption = 6,
    budget: BudgetOption = 20,
    budget_boxes: BudgetBoxesOption = None,
    initial: InitialOption = None,
    images_seen: ImagesSeenOption = 400,
    px: PxOption = 256,
    common: CommonOption = "",
    start: StartOption = None,
    file: WeightsOption = None,
    jobs: JobsOption = 1,
    work: WorkOption = Path("workspaces/simulation"),
    json: JsonOption = Path("benchmarks/results/simulation.json"),
) -> None:
    """Compare acquisition functions with an oracle annotator, without Label Studio.

    Each seed has a random initial set. In each cycle the detector is trained as in the product, with a frozen
    image encoder, and each acquisition function selects the next images. An interrupted simulation resumes.

    Example: `dsmoe simulate aluminium --strategies random,entropy,expected_gain --seeds 5 --rounds 6`
    """
    from pipelines.benchmarks.results import write_result
    from pipelines.benchmarks.simulation.plan import Plan
    from pipelines.benchmarks.simulation.plot import draw_curves, require_matplotlib
    from pipelines.benchmarks.simulation.run import run_simulation
    from pipelines.settings.environment import Environment
    from pipelines.training.weights import default_start, weights_of_start

    require_matplotlib()
    name = start.value if start else default_start("nano")
    plan = Plan.of(
        data=data,
        strategies=names_of(strategies),
        rounds=rounds,
        budget=budget,
        budget_boxes=budget_boxes,
        initial=initial or budget,
        images_seen=images_seen,
        px=px,
        changes=common,
        start=name,
        weights=file or weights_of_start(name, Size.NANO.value, Environment.read().weights),
        work=work,
    )
    numbers = list(range(1, seeds + 1))
    with TerminalReporter() as progress:
        results = run_simulation(plan, numbers, jobs, progress)
    measured = _measured(data, rounds, plan, results)
    write_result(json, measured, command=command_line(), seeds=numbers)
    plot = json.with_suffix(".png")
    draw_curves(measured, plot)
    console.print(_table(measured))
    line(f"{json} and {plot} are written")


def _measured(data: Path, rounds: int, plan: Any, results: Any) -> dict[str, Any]:
    """Content of the result file."""
    from pipelines.benchmarks.simulation.summary import summarise

    cycles = [cycle for cells in results.values() for name in plan.strategies for cycle in cells[name]]
    return {
        "data": data.resolve().name,
        "plan": {**plan.training_identity, **plan.selection_identity, "rounds": rounds},
        "per_cycle": {
            name: round(sum(cycle[name] for cycle in cycles) / max(len(cycles), 1), 1)
            for name in ("seconds", "cpu_s")
        },
        **summarise(results, plan.strategies),
    }


def _table(measured: dict[str, Any]) -> Table:
    from pipelines.benchmarks.simulation.table import HEAD, simulation_rows, simulation_title

    table = Table(*HEAD, title=simulation_title(measured), title_justify="left")
    for row in simulation_rows(measured):
        table.add_row(*row)
    return table
