"""dsmoe benchmark demos"""

from __future__ import annotations

import json as json_format
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli import demo
from pipelines.cli.options import (
    RESULTS,
    BudgetOption,
    DryRunOption,
    PortOption,
    finite,
    output_file,
    output_folder,
)
from pipelines.cli.terminal import command_line, console, line


class Variant(StrEnum):
    """Settings of a demo."""

    DEFAULT = "default"
    """As ``dsmoe demo``: weights, encoder and input size chosen by it."""
    SCRATCH = "scratch"
    """Random weights, a trained encoder and 320 px: the default up to version 0.2."""


SETTINGS: dict[Variant, dict[str, Any]] = {
    Variant.DEFAULT: {},
    Variant.SCRATCH: {
        "start": "scratch",
        "training": {"encoder": "train"},
        "model": {"image_px": 320},
    },
}


def demos(
    data: Annotated[
        list[Path],
        typer.Option("--data", metavar="DIR", help="images/, train.json and val.json; can be repeated."),
    ],
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.01, help="Time of each training.", callback=finite)
    ] = 3.0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Pre-annotated rounds.")] = 3,
    budget: BudgetOption = 50,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Demos of each kind; seeds 1, 2, ...")] = 2,
    variant: Annotated[
        list[Variant] | None,
        typer.Option("--variant", help="default, scratch; can be repeated; default: both."),
    ] = None,
    port: PortOption = None,
    work: Annotated[
        Path,
        typer.Option(
            "--work", metavar="DIR", help="Demos; a finished one is not run again.", callback=output_folder
        ),
    ] = Path("workspaces/demos"),
    json: Annotated[
        Path, typer.Option("--json", metavar="FILE", help="Result file.", callback=output_file)
    ] = RESULTS / "demos.json",
    dry_run: DryRunOption = False,
) -> None:
    """Whole demos next to each other, at equal minutes: today's default start and random weights.

    An interrupted benchmark resumes. The result file is written after each demo, one key per data set.

    Example: `dsmoe benchmark demos --data neu_det --minutes 3 --seeds 2`
    """
    from pipelines.benchmarks.demos_table import demos_table
    from pipelines.benchmarks.results import update_result

    numbers, variants = list(range(1, seeds + 1)), variant or list(Variant)
    for folder in data:
        name = folder.resolve().name
        runs: list[dict[str, Any]] = []
        for seed in numbers:
            for kind in variants:
                raw = {
                    **SETTINGS[kind],
                    "rounds": rounds,
                    "budget": budget,
                    "minutes": minutes,
                    "seed": seed,
                    "dry_run": dry_run,
                }
                finished = _run(raw, folder, work / f"{name}-{kind.value}-{seed}", port)
                runs.append({"variant": kind.value, "seed": seed, **finished})
                json.parent.mkdir(parents=True, exist_ok=True)
                part = {name: {"minutes": minutes, "budget": budget, "runs": runs}}
                update_result(json, part, command=command_line(), seeds=numbers)
    console.print(demos_table(json_format.loads(json.read_text(encoding="utf-8"))), soft_wrap=True)
    line(f"{json} is written")


def _run(raw: dict[str, Any], data: Path, folder: Path, port: int | None) -> dict[str, Any]:
    """Run one demo unless its result is stored, and return its rounds and its duration.

    Its workspace is deleted when it is finished.
    """
    from pipelines import demo as loop
    from pipelines.settings.environment import Environment

    stored, workspace = folder / "result.json", folder / "workspace"
    if not stored.exists():
        folder.mkdir(parents=True, exist_ok=True)
        given = raw if port is None else {**raw, "port": port}
        plan = demo.make_plan(given, None, data)
        demo.run(plan, data, workspace, headless=True, fresh=False, as_json=stored, port=port)
        loop.delete_workspace(workspace, Environment.read())
    result = json_format.loads(stored.read_text(encoding="utf-8"))
    return {name: result[name] for name in ("minutes", "rounds")}
