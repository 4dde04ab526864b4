"""Table of the benchmark of label errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsmoe_core.plain_text import escape_markdown
from pipelines.benchmarks.markdown import markdown_table

KINDS = ("missed", "misplaced", "mislabelled")


def label_error_table(result: Mapping[str, Any]) -> str:
    """One row for each data set and method: average precision of each kind, with the range over the seeds."""
    rows = [
        [
            f"{escape_markdown(name)}, {measured['images']} images, {measured['boxes']} boxes",
            method,
            *(average_precision_cell(row[kind]) for kind in KINDS),
        ]
        for name, measured in sorted(result.items())
        if isinstance(measured, Mapping) and "methods" in measured
        for method, row in measured["methods"].items()
    ]
    return markdown_table(("data", "method", *KINDS), rows)


def average_precision_cell(values: Mapping[str, float]) -> str:
    """Mean average precision of a kind of error, with the range over the seeds."""
    return f"{values['ap']:.3f} [{values['ap_min']:.3f}, {values['ap_max']:.3f}]"
