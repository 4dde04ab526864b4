"""dsmoe benchmark scale"""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.options import RESULTS, PortOption, ResultsOption, SeedOption
from pipelines.cli.terminal import TerminalReporter, command_line, console, line
from pipelines.cli.training_command import names_of, numbers_of


def scale(
    parts: Annotated[
        str,
        typer.Option("--parts", metavar="NAME,...", help="Some of overhead, ray, ray_killed, torchrun."),
    ] = "overhead,ray,ray_killed,torchrun",
    images: Annotated[int, typer.Option("--images", min=200, help="Images to predict on Ray.")] = 2000,
    images_seen: Annotated[
        int, typer.Option("--images-seen", min=8, help="Images shown in each training.")
    ] = 160,
    px: Annotated[
        int,
        typer.Option("--px", min=64, help="Side of the images and of the network's input, a multiple of 32."),
    ] = 96,
    pool: Annotated[int, typer.Option("--pool", min=300, help="overhead: images in the pool.")] = 1000,
    budgets: Annotated[
        str, typer.Option("--budgets", metavar="N,N,...", help="overhead: images sent in round 0, 1, ...")
    ] = "40,40,200",
    stub: Annotated[
        bool, typer.Option("--stub", help="overhead: the stub of Label Studio instead of a real one.")
    ] = False,
    port: PortOption = None,
    seed: SeedOption = 0,
    out: ResultsOption = RESULTS,
) -> None:
    """Overhead of a cycle, and what Ray and torchrun bring on this machine.

    Each part is written to scale.json when it is measured; parts that are not named are kept.

    Example: `dsmoe benchmark scale --parts overhead,ray`
    """
    import tempfile
    from pathlib import Path

    from dsmoe_core.errors import SettingsError
    from pipelines.benchmarks.results import read_result, update_result
    from pipelines.benchmarks.scale.measure import PARTS, ScaleOptions
    from pipelines.benchmarks.scale.overhead import OverheadOptions
    from pipelines.benchmarks.scale.table import scale_table
    from pipelines.settings.environment import Environment

    names = names_of(parts)
    if unknown := [name for name in names if name not in PARTS]:
        raise SettingsError(
            f"unknown part {unknown[0]!r}; expected some of {', '.join(PARTS)}", "Correct it."
        )
    if px % 32:
        raise SettingsError(f"--px is {px}; expected a multiple of 32", "Give one such as 96.")
    sent = tuple(int(number) for number in numbers_of(budgets))
    overhead = OverheadOptions(images=pool, px=px, budgets=sent, seed=seed, port=port, stub=stub)
    options = ScaleOptions(overhead, images=images, px=px, images_seen=images_seen, seed=seed)
    path, environment = out / "scale.json", Environment.read()
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        with tempfile.TemporaryDirectory(prefix="dsmoe-") as scratch, TerminalReporter() as progress:
            measured = PARTS[name](Path(scratch), options, environment, progress)
        update_result(path, {name: measured}, command=command_line(), seeds=[seed])
        line(f"{name}: {path} is written")
    console.print(scale_table(read_result(path)), markup=False, highlight=False)
