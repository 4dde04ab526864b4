"""dsmoe benchmark ranking"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from pipelines.cli.options import RESULTS, ResultsOption, SeedOption
from pipelines.cli.terminal import TerminalReporter, command_line, console, line
from pipelines.cli.training_command import names_of, numbers_of


def ranking(
    images: Annotated[
        str, typer.Option("--images", metavar="N,N,...", help="Sizes of the pool.")
    ] = "10000,100000,1000000",
    functions: Annotated[
        str, typer.Option("--functions", metavar="NAME,NAME,...", help="Acquisition functions.")
    ] = "random,entropy,core-set,ppal,expected_gain",
    seed: SeedOption = 0,
    out: ResultsOption = RESULTS,
) -> None:
    """Seconds and peak memory of ranking a pool, from synthetic stored predictions and embeddings.

    Example: `dsmoe benchmark ranking --images 10000,100000`
    """
    from pipelines.benchmarks.ranking import measure_ranking
    from pipelines.benchmarks.results import write_result

    sizes = [int(number) for number in numbers_of(images)]
    with TerminalReporter() as progress:
        measured = measure_ranking(sizes, names_of(functions), seed, progress)
    path = out / "ranking.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_result(path, measured, command=command_line(), seeds=[seed])
    table = Table("images", "step", "seconds", "processor seconds", "peak MB")
    for row in measured["rows"]:
        times = [f"{row[name]:.2f}" if name in row else "-" for name in ("seconds", "cpu_s")]
        table.add_row(f"{row['images']:,}", row["step"], *times, f"{row['peak_mb']:.0f}")
    console.print(table)
    line(f"{path} is written")
