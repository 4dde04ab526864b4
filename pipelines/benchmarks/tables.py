"""Renders the tables of documents from benchmarks/results/NAME.json.

A document marks a table with ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->``; the text between the
marks is replaced. ``NAME_errors`` and ``NAME_classes`` are the errors by kind and the metrics by class of the
trainings in NAME.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dsmoe_core.atomic import atomic_write
from dsmoe_core.errors import FormatError
from dsmoe_core.plain_text import markdown_code
from pipelines.benchmarks.demos_table import demos_table
from pipelines.benchmarks.effort_table import effort_table
from pipelines.benchmarks.label_error_table import label_error_table
from pipelines.benchmarks.lines_table import lines_table
from pipelines.benchmarks.loop_table import loop_table
from pipelines.benchmarks.measurement_tables import (
    demo_table,
    experts_table,
    knockout_table,
    latency_table,
    routing_table,
    speed_table,
    studio_table,
)
from pipelines.benchmarks.ranking_table import ranking_table
from pipelines.benchmarks.results import read_result
from pipelines.benchmarks.scale.table import scale_table
from pipelines.benchmarks.simulation.table import simulation_table
from pipelines.benchmarks.training_tables import (
    class_table,
    curve_table,
    error_table,
    forgetting_table,
    text_table,
    training_table,
)
from pipelines.benchmarks.uncertainty_table import uncertainty_table

_OPENING_MARK = re.compile(r"<!-- results:[a-z_]+ -->")
_MARKED = re.compile(
    r"(<!-- results:(?P<name>[a-z_]+) -->\n)(?P<body>.*?)(<!-- /results:(?P=name) -->)", re.DOTALL
)
_DETECTOR_TABLE = training_table(model="model", image_px="px", start="start", labels="labels")
_WARM_START_TABLE = training_table(labels="labels", start="start", model="model")
_FIRST_MODEL_TABLE = training_table(labels="labels", start="start", settings="settings", image_px="px")
_ABLATION_TABLE = training_table(row="row", size="size", image_px="px")
_SETTINGS_TABLE = training_table(settings="settings", size="size", image_px="px", labels="labels")

TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "active_learning": simulation_table,
    "active_learning_deeppcb": simulation_table,
    "active_learning_neu_det": simulation_table,
    "companions": _SETTINGS_TABLE,
    "demo": demo_table,
    "demo_neu_det": demo_table,
    "demo_boards": demo_table,
    "demos": demos_table,
    "effort": effort_table,
    "experts": experts_table,
    "knockout": knockout_table,
    "knockout_neu_det": knockout_table,
    "ranking": ranking_table,
    "routing": routing_table,
    "routing_neu_det": routing_table,
    "label_errors": label_error_table,
    "uncertainty": uncertainty_table,
    "uncertainty_neu_det": uncertainty_table,
    "latency": latency_table,
    "lines": lines_table,
    "loop": loop_table,
    "studio": studio_table,
    "accuracy": _DETECTOR_TABLE,
    "accuracy_epochs": _DETECTOR_TABLE,
    "few_labels": _DETECTOR_TABLE,
    "curve": curve_table,
    "ablation": _ABLATION_TABLE,
    "ablation_equal": _ABLATION_TABLE,
    "ablation_lite": _ABLATION_TABLE,
    "ablation_seeds": _ABLATION_TABLE,
    "warmstart": _WARM_START_TABLE,
    "warmstart_boards": _WARM_START_TABLE,
    "first_model": _FIRST_MODEL_TABLE,
    **{
        f"first_model_{name}": _FIRST_MODEL_TABLE
        for name in (
            "aluminium",
            "neu_det",
            "long",
            "long_aluminium",
            "long_neu_det",
            "inner",
            "inner_neu_det",
        )
    },
    "settings": _SETTINGS_TABLE,
    **{
        f"settings_{name}": _SETTINGS_TABLE
        for name in (
            "all",
            "labels",
            "losses",
            "neu_det",
            "paper",
            "path",
            "row_e",
            "row_e_aluminium",
            "rows",
            "strides",
            "strides_minutes",
            "tiles",
        )
    },
    "scale": scale_table,
    "speed": speed_table,
    "words": text_table,
    "forgetting": forgetting_table,
}
"""The table of each result file."""
VIEWS = {"_errors": error_table, "_classes": class_table}
"""Further tables of result files with trainings, by the suffix of the mark's name."""


def render(text: str, results: Path) -> str:
    """The text of a document with every marked table rendered again.

    Args:
        results: folder of the result files.

    Raises:
        FormatError: a mark has no closing mark, no result file or no known table.
    """
    if len(_OPENING_MARK.findall(text)) != len(_MARKED.findall(text)):
        raise FormatError(
            "a `<!-- results:NAME -->` has no `<!-- /results:NAME -->` after it", "Add the closing mark."
        )

    def table(match: re.Match[str]) -> str:
        file, render_table = _table_of(match["name"])
        result = read_result(results / f"{file}.json")
        return f"{match[1]}{render_table(result)}\n\n{_origin(result)}\n{match[4]}"

    return _MARKED.sub(table, text)


def update(document: Path, results: Path) -> bool:
    """Render the tables of a document in place; returns whether it changed.

    Raises:
        FormatError: the document is missing or no text, or see ``render``.
    """
    try:
        before = document.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise FormatError(
            f"{document} is {'not there' if isinstance(error, OSError) else 'no text in UTF-8'}",
            "Give a Markdown document.",
        ) from error
    after = render(before, results)
    if after != before:
        atomic_write(document, after)
    return after != before


def _table_of(name: str) -> tuple[str, Callable[[Mapping[str, Any]], str]]:
    """Name of the result file, and the function that renders the table."""
    for suffix, view in VIEWS.items():
        if name.removesuffix(suffix) in TABLES and name.endswith(suffix):
            return name.removesuffix(suffix), view
    if name not in TABLES:
        raise FormatError(
            f"unknown table results:{name}; expected one of {', '.join(TABLES)}", "Correct the mark."
        )
    return name, TABLES[name]


def _origin(result: Mapping[str, Any]) -> str:
    """The commands that wrote the file, with date and commit; the last one also with the machine."""
    machine = result["machine"]
    cores = f"{machine['cores']} core{'s' * (machine['cores'] != 1)}"
    where = f"{machine['cpu']}, {cores}, {machine.get('gpu') or 'no GPU'}"
    earlier = dict.fromkeys(_command(origin) for origin in result.get("origins", {}).values())
    return "; ".join([*earlier, _command(result, where)]) + "."


def _command(origin: Mapping[str, Any], where: str | None = None) -> str:
    commit = f"commit {origin['commit'][:10]}" if origin.get("commit") else None
    return ", ".join(filter(None, (markdown_code(origin["command"]), origin["date"], where, commit)))
