"""dsmoe benchmark demo, experts, tables"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli import demo as demo_command
from pipelines.cli.show import console

app = typer.Typer(
    help="Measure something and write benchmarks/results/NAME.json.",
    no_args_is_help=True,
)
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of result files.")]
RESULTS = Path("benchmarks/results")


def write(name: str, out: Path, measured: dict[str, Any], seeds: list[int]) -> None:
    """Write a result file and say where it is."""
    from pipelines.benchmarks.results import write_result

    path = out / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_result(path, measured, command=" ".join(["dsmoe", *sys.argv[1:]]), seeds=seeds)
    console.print(f"{path} is written", highlight=False, soft_wrap=True)


@app.command("demo")
def demo(
    data: demo_command.DataOption = None,
    out: OutOption = RESULTS,
    pictures_seen: demo_command.SeenOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With stand-ins; for trying it out.")] = False,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of Label Studio.")] = 8080,
) -> None:
    """Run the whole loop and measure what each round brings.

    Example: `dsmoe benchmark demo --data deeppcb`
    """
    plan = demo_command.checked_plan({"dry_run": dry_run, "port": port}, pictures_seen, data)
    where = demo_command.WORKSPACES / f"benchmark-{data.resolve().name if data else 'synthetic'}"
    demo_command.run(plan, data, where, headless=True, fresh=True, as_json=out / "demo.json")


@app.command("experts")
def experts(
    size: Annotated[str, typer.Option("--size", help="Preset of the detector: nano or base.")] = "base",
    px: Annotated[
        int | None, typer.Option("--px", help="Side of the picture; default: the preset's.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=3, help="Measurements of each row.")] = 25,
    seed: Annotated[int, typer.Option("--seed", help="Of the weights and the pictures.")] = 42,
    out: OutOption = RESULTS,
) -> None:
    """Time, activated GFLOPs and parameters by the number of active experts (the paper's Table 5).

    Example: `dsmoe benchmark experts --repeats 25`
    """
    from rich.progress import track

    from dsmoe_core.config import ModelConfig
    from pipelines.benchmarks import experts as benchmark
    from pipelines.settings import checked

    raw = {**ModelConfig.of_size("nano" if size == "nano" else "base").model_dump(), "size": size}
    config = checked(ModelConfig, raw | ({"image_px": px} if px else {}), "the command line")
    measured = benchmark.measure(
        config, repeats=repeats, seed=seed, watch=lambda rounds: track(rounds, "measuring", console=console)
    )
    write("experts", out, measured, [seed])


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
    console.print(f"{document}: tables {'rendered anew' if changed else 'are as they should be'}")
