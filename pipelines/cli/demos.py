"""dsmoe benchmark demos"""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from pipelines.settings.demo import DemoPlan


class Variant(StrEnum):
    """Settings of a demo."""

    DEFAULT = "default"
    """As ``dsmoe demo``: weights, encoder and input size chosen by it."""
    SCRATCH = "scratch"
    """Random weights, a trained encoder, 320 px and all levels of the head: the default up to 0.2."""


SETTINGS: dict[Variant, dict[str, Any]] = {
    Variant.DEFAULT: {},
    Variant.SCRATCH: {
        "start": "scratch",
        "training": {"encoder": "train"},
        "model": {"image_px": 320, "head_strides": (4, 8, 16)},
    },
}


WorkOption = Annotated[
    Path,
    typer.Option(
        "--work",
        metavar="DIR",
        help="Demos; a finished one is run again only with other settings, data or code.",
        callback=output_folder,
    ),
]


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
    work: WorkOption = Path("workspaces/demos"),
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

    _require_different_names(data)
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
                plan = demo.make_plan(raw, None, folder)
                demo_id = _demo_id(plan, folder)
                finished = _run(plan, folder, work / f"{name}-{kind.value}-{seed}-{demo_id}", port)
                runs.append({"variant": kind.value, "seed": seed, **finished})
                json.parent.mkdir(parents=True, exist_ok=True)
                part = {name: {"minutes": minutes, "budget": budget, "runs": runs}}
                update_result(json, part, command=command_line(), seeds=numbers)
    console.print(demos_table(json_format.loads(json.read_text(encoding="utf-8"))), soft_wrap=True)
    line(f"{json} is written")


def _require_different_names(data: Sequence[Path]) -> None:
    """Refuse data folders with the same name, as names are the keys of the result file.

    Raises:
        SettingsError: two have the same name.
    """
    from dsmoe_core.errors import SettingsError

    names = [folder.resolve().name for folder in data]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise SettingsError(
            f"{len(repeated)} data folders have the name of another one, such as {repeated[0]}; expected "
            "different names, because the result file has one key per name",
            "Give each folder once, and rename those with the same name.",
        )


def _demo_id(plan: DemoPlan, data: Path) -> str:
    """Hash of what determines the result of a demo: its settings, data folder, labels and code."""
    import dsmoe_core
    import prompts
    from dsmoe_core.digest import content_id, sha256_of
    from pipelines import demo as loop
    from pipelines import detectors, rounds, settings
    from pipelines.benchmarks.comparison.digests import module_digest, package_digest

    labels = [path for path in (data / "train.json", data / "val.json") if path.is_file()]
    code = [package_digest(Path(str(p.__file__))) for p in (dsmoe_core, prompts, detectors, rounds, settings)]
    determinants = {
        "settings": plan.model_dump(mode="json", exclude={"port"}),
        "data": str(data.resolve()),
        "labels": [sha256_of(path) for path in labels],
        "code": [*code, module_digest(Path(loop.__file__))],
    }
    return content_id(determinants)


def _run(plan: DemoPlan, data: Path, folder: Path, port: int | None) -> dict[str, Any]:
    """Run one demo unless its result is stored, and return its rounds and its duration.

    Its workspace is deleted when it is finished.
    """
    from pipelines import demo as loop
    from pipelines.settings.environment import Environment

    stored, workspace = folder / "result.json", folder / "workspace"
    if not stored.exists():
        folder.mkdir(parents=True, exist_ok=True)
        plan = plan if port is None else plan.model_copy(update={"port": port})
        demo.run(plan, data, workspace, headless=True, fresh=False, as_json=stored, port=port)
        loop.delete_workspace(workspace, Environment.read())
    result = json_format.loads(stored.read_text(encoding="utf-8"))
    return {name: result[name] for name in ("minutes", "rounds")}
