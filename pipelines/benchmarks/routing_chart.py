"""Image of the experts' specialisation: the weight of each expert at the true boxes of each class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsmoe_core.errors import FormatError
from pipelines.benchmarks.simulation.plot import require_matplotlib

BACKGROUND = '<rect width="100%" height="100%" fill="white"/>'
"""The text is dark, so the image has its own background on a dark page."""


def read_routing_chart(path: Path) -> str:
    """The image of a result file of ``dsmoe benchmark knockout``, as SVG.

    Raises:
        FormatError: the file is not a routing.json.
        PrerequisiteError: matplotlib is not installed.
    """
    require_matplotlib()
    try:
        return routing_chart(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{path} is not the routing.json of a knock-out: {type(error).__name__} {error}",
            "Write one with `dsmoe benchmark knockout`.",
        ) from error


def routing_chart(result: Mapping[str, Any]) -> str:
    """Heat map of class and expert, as SVG. Classes without a box are left out."""
    from pipelines.evaluation.report.charts import heat_chart  # needs matplotlib

    weights = {name: row for name, row in zip(result["classes"], result["weights"], strict=True) if any(row)}
    boxes: int = result["boxes"]
    title = f"weight at {boxes:,} true boxes"
    columns = [f"expert {number}" for number in range(1, result["experts"] + 1)]
    svg = heat_chart({title: list(weights.values())}, list(weights), columns)
    head, _, rest = svg.partition(">")
    return f"{head}>{BACKGROUND}{rest}"
