"""Table of the time and memory of ranking large pools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.benchmarks.markdown import markdown_table

NOT_RANKING = ("import", "write")
"""Steps that are no part of a round."""


def ranking_table(result: Mapping[str, Any]) -> str:
    """One row for each step, with processor seconds at each pool size, and one with the peak memory."""
    sizes = sorted({row["images"] for row in result["rows"]})
    cells = {(row["images"], row["step"]): row for row in result["rows"]}
    steps = [
        row["step"] for row in result["rows"] if row["images"] == sizes[0] and row["step"] not in NOT_RANKING
    ]
    rows = [[step, *(f"{cells[size, step]['cpu_s']:.1f}" for size in sizes)] for step in steps]
    peaks = [max(row["peak_mb"] for row in result["rows"] if row["images"] == size) for size in sizes]
    rows.append(["peak memory, MB", *(f"{peak:,.0f}" for peak in peaks)])
    head = ("processor seconds", *(f"{size:,} images" for size in sizes))
    return markdown_table(head, rows)
