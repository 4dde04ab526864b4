"""Table of several product lines in one model (lines.json)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dsmoe_core.plain_text import escape_markdown, markdown_code
from pipelines.benchmarks.markdown import markdown_table, score_over_seeds
from pipelines.benchmarks.training_tables import DISPLAY, NO_TRAINING, resampling_note

METRICS = {"map50": "mAP@.5", "map": "mAP@.5:.95"}


def lines_table(result: Mapping[str, Any]) -> str:
    """Both metrics of each line and their mean, together and alone, and what the experts say about a line."""
    if not result.get("rows"):
        return NO_TRAINING
    parts = [_metrics(result), *_changes(result), *_experts(result.get("specialisation", ()))]
    return "\n\n".join(parts)


def _metrics(result: Mapping[str, Any]) -> str:
    values = {(row["settings"], row["trained"], row["data"]): row for row in result["rows"]}
    lines = []
    for test in (test for test in result["tests"] if test["against"] == "alone"):
        cells = [_settings(test["settings"]), escape_markdown(test["data"])]
        for name in METRICS:
            runs = (values[test["settings"], trained, test["data"]] for trained in ("together", "alone"))
            cells += [*(score_over_seeds(row[name]) for row in runs), _difference(test[name])]
        lines.append(cells)
    columns = [column for name in METRICS.values() for column in (f"{name} together", "alone", "difference")]
    seeds = max(len(row["seeds"]) for row in result["rows"])
    title = (
        f"One model for all lines, shown {result['budget']['images']} images, against one model for each "
        f"line, shown as many images of it; {seeds} seed{'s' * (seeds != 1)}. The intervals of the "
        "differences are over images."
    )
    sentences = [
        *([f"All models have {markdown_code(result['common'])}."] if result["common"] else []),
        *resampling_note(result),
    ]
    note = "".join(f" {sentence}" for sentence in sentences)
    return f"{title}{note}\n\n{markdown_table(('settings', 'data', *columns), lines)}"


def _changes(result: Mapping[str, Any]) -> list[str]:
    """The joint models with changed settings minus that without a change."""
    lines = [
        [
            _settings(test["settings"]),
            escape_markdown(test["data"]),
            *(_difference(test[name]) for name in METRICS),
        ]
        for test in result["tests"]
        if test["against"] != "alone"
    ]
    head = ("settings, together, minus unchanged", "data", *METRICS.values())
    return [markdown_table(head, lines)] if lines else []


def _experts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        [
            _settings(row["settings"]),
            str(row["seed"]),
            f"{row['share']:.3f}",
            f"{row['by_chance']:.3f}",
            f"{row['p']:.3g}",
        ]
        for row in rows
    ]
    head = ("settings", "seed", "I(expert; line) / H(line)", "by chance", "p")
    return [markdown_table(head, lines)] if lines else []


def _settings(name: str) -> str:
    return DISPLAY.get(("settings", name), escape_markdown(name))


def _difference(comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return "-"
    low, high = comparison["ci95"]
    return f"{comparison['delta']:+.3f} [{low:+.3f}, {high:+.3f}]"
