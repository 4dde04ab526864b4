"""Table of the annotation effort with chosen thresholds and with one fixed score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dsmoe_core.plain_text import escape_markdown
from pipelines.benchmarks.markdown import markdown_table, percent

SHARES = ("accepted", "moved", "relabelled", "deleted", "added")


def effort_table(result: Mapping[str, Any]) -> str:
    """Rows of each model and assumed time: shares of the corrections, seconds, and seconds saved."""
    head = ("model", "drawing, deleting", "thresholds", *SHARES, "s/image", "saved s/image [95 %]")
    rows = [row for measured in result["models"] for row in _rows(measured)]
    first = result["models"][0]
    title = (
        f"{first['images']} images, {first['boxes']} boxes. Accepted, moved, relabelled, deleted: share of "
        "the shown boxes; added: share of the final boxes; saved: against 0.3 for all classes."
    )
    return f"{title}\n\n{markdown_table(head, rows)}"


def _rows(measured: Mapping[str, Any]) -> Iterator[list[str]]:
    for part in (value for value in measured.values() if isinstance(value, Mapping)):
        seconds, saved = part["seconds_per_correction"], part["chosen_minus_fixed"]
        low, high = saved["ci95"]
        for name, row in part["rows"].items():
            score = f" {row['score']:.2f}" if "score" in row else ""
            difference = f"{-saved['seconds']:.1f} [{-high:.1f}, {-low:.1f}]" if name == "chosen" else "-"
            yield [
                escape_markdown(measured["model"].rsplit("/", 1)[-1]),
                f"{seconds['added']:g} s, {seconds['deleted']:g} s",
                f"{name}{score}",
                *(percent(row[share]) for share in SHARES),
                f"{row['seconds_per_image']:.1f}",
                difference,
            ]
