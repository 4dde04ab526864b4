"""Table of the benchmark of label errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsmoe_core.plain_text import escape_markdown
from pipelines.benchmarks.markdown import markdown_table

KINDS = ("missed", "misplaced", "mislabelled")


def label_error_table(result: Mapping[str, Any]) -> str:
    """Average precision by data set, method and kind, with the range over the seeds; then the gate."""
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
    ranking = markdown_table(("data", "method", *KINDS), rows)
    gates = [
        [
            f"{escape_markdown(name)}, {measured['gate']['images']} images",
            f"{row['wrong']:.0%}",
            f"{row['found']:.1%}",
            f"{row['found_max']:.1%}",
            f"{row['reference']:.1%}",
            f"{row['refused']} of {measured['gate']['batches']}",
        ]
        for name, measured in sorted(result.items())
        if isinstance(measured, Mapping) and "gate" in measured
        for row in measured["gate"]["shares"]
    ]
    if not gates:
        return ranking
    head = ("data", "wrong boxes", "found, mean", "found, most", "found in right images", "refused batches")
    return f"{ranking}\n\n{markdown_table(head, gates)}"


def average_precision_cell(values: Mapping[str, float]) -> str:
    """Mean average precision of a kind of error, with the range over the seeds."""
    return f"{values['ap']:.3f} [{values['ap_min']:.3f}, {values['ap_max']:.3f}]"
