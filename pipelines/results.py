"""Tables in documents, rendered from result files, so that no figure is ever typed by hand.

A document holds ``<!-- results:NAME -->`` and ``<!-- /results -->``; what stands between them is replaced by
the table of ``benchmarks/results/NAME.json``::

    python -m pipelines.results README.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dsmoe_core.errors import FormatError

RESULTS = Path("benchmarks") / "results"
REGION = re.compile(r"(<!-- results:(?P<name>[\w-]+) -->\n).*?(?P<end><!-- /results -->)", re.DOTALL)
MARKER = re.compile(r"<!-- /?results\b")


class Machine(BaseModel):
    """What a result was measured on."""

    cpu: str
    cores: int
    gpu: str | None = None


class Result(BaseModel):
    """What every result file says about itself; further keys are welcome."""

    model_config = ConfigDict(frozen=True)

    command: str
    commit: str
    date: str
    machine: Machine
    seeds: tuple[int, ...]


class DemoRound(BaseModel):
    """One round; accepted to added are shares of 1, and what was not measured is absent."""

    round: int
    pictures: int
    boxes: int
    accepted: float | None = None
    moved: float | None = None
    relabelled: float | None = None
    deleted: float | None = None
    added: float | None = None
    map50: float | None = None
    map: float | None = None
    promoted: bool | None = None
    reason: str = ""


class Demo(Result):
    """demo.json: the loop, round by round."""

    data: str
    minutes: float
    rounds: tuple[DemoRound, ...]


def render_tables(text: str, results: Path) -> str:
    """The text with every ``results`` region rendered from the folder of result files; idempotent.

    Raises:
        FormatError: a region is not closed, no renderer knows its name, or its file is not in its format.
    """
    rendered, regions = REGION.subn(
        lambda region: f"{region[1]}{_section(region['name'], results)}\n{region['end']}", text
    )
    markers = len(MARKER.findall(text))
    if markers != 2 * regions:
        raise FormatError(
            f"{markers} results markers make {regions} regions; expected a start and an end for each region",
            "Write `<!-- results:NAME -->` and `<!-- /results -->` on lines of their own.",
        )
    return rendered


def _section(name: str, results: Path) -> str:
    if name not in RENDERERS:
        raise FormatError(
            f"no table is known for results:{name}; known are {', '.join(RENDERERS)}",
            "Add a renderer to pipelines/results.py.",
        )
    file = results / f"{name}.json"
    if not file.is_file():
        return f"Not measured yet. `dsmoe benchmark {name}` measures it."
    try:
        return RENDERERS[name](file.read_text())
    except ValidationError as error:
        raise FormatError(
            f"{file.name} is no {name} result: {error}", f"Write it again by `dsmoe benchmark {name}`."
        ) from error


def _demo(json: str) -> str:
    demo = Demo.model_validate_json(json)
    header = ("round", "pictures", "boxes", *SHARES.values(), "mAP@.5", "mAP@.5:.95", "model")
    rows = [
        (
            str(row.round),
            str(row.pictures),
            str(row.boxes),
            *(_figure(getattr(row, share), "{:.0%}") for share in SHARES),
            _figure(row.map50, "{:.3f}"),
            _figure(row.map, "{:.3f}"),
            _verdict(row),
        )
        for row in demo.rounds
    ]
    about = f"Data: {demo.data}. {demo.minutes:.1f} minutes in all."
    return f"{_table(header, rows)}\n\n{about} {_origin(demo)}"


def _verdict(row: DemoRound) -> str:
    word = {True: "promoted", False: "refused", None: ""}[row.promoted]
    return ": ".join(part for part in (word, row.reason) if part)


def _figure(value: float | None, form: str) -> str:
    """A figure, or nothing where it was not measured."""
    return "" if value is None else form.format(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _origin(result: Result) -> str:
    machine = f"{result.machine.cpu}, {result.machine.cores} cores"
    if result.machine.gpu:
        machine += f", {result.machine.gpu}"
    seeds = ", ".join(map(str, result.seeds))
    return (
        f"Measured by `{result.command}` (seed {seeds}) on {machine}, {result.date}, at {result.commit[:12]}."
    )


SHARES: Mapping[str, str] = {
    "accepted": "accepted unedited",
    "moved": "moved",
    "relabelled": "relabelled",
    "deleted": "deleted",
    "added": "added",
}
RENDERERS: Mapping[str, Callable[[str], str]] = {"demo": _demo}


if __name__ == "__main__":
    for document in map(Path, sys.argv[1:]):
        document.write_text(render_tables(document.read_text(), RESULTS))
