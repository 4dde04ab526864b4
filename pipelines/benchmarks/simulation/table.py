"""The table of a simulation, for the terminal and for documents."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

from dsmoe_core.evaluation.seed_stats import paired_t_test
from dsmoe_core.plain_text import escape_markdown
from pipelines.benchmarks.markdown import markdown_table, score_over_seeds

Json = Mapping[str, Any]
HEAD = (
    "strategy",
    "mAP@.5 at the end",
    "mean mAP@.5 over the boxes",
    "minus random [95 %]",
    "boxes to 95 %",
    "minutes to 95 %",
)


def simulation_rows(measured: Json) -> list[tuple[str, ...]]:
    """Accuracy of each strategy at the end and over the curve, and its difference to random."""
    last = {row["strategy"]: row for row in measured["curves"]}
    differences = {row["strategy"]: row["map50_by_boxes"] for row in measured["differences"]}
    efforts = {row["strategy"]: row for row in measured["efforts"]}
    return [
        (
            row["strategy"],
            score_over_seeds(last[row["strategy"]]["map50"]["seeds"]),
            f"{row['map50_by_boxes']['mean']:.3f}",
            _difference(differences.get(row["strategy"])),
            _mean(efforts[row["strategy"]]["boxes_to_95_map50"]),
            _mean(efforts[row["strategy"]]["minutes_to_95_map50"]),
        )
        for row in measured["areas"]
    ]


def simulation_title(measured: Json) -> str:
    """The data set, and the accuracy with all labels."""
    return f"{measured['data']}: mAP@.5 with all labels {measured['full']['map50']['mean']:.3f}"


def simulation_table(result: Json) -> str:
    """The table in Markdown, with the stop signal below."""
    rows = [(escape_markdown(name), *cells) for name, *cells in simulation_rows(result)]
    saved = [boxes for row in result["stopping"] for boxes in row["boxes_saved"] if boxes is not None]
    lost = [value for row in result["stopping"] for value in row["map_lost"] if value is not None]
    curves = sum(len(row["boxes_saved"]) for row in result["stopping"])
    covered, forecasts = (sum(row[key] for row in result["stopping"]) for key in ("covered", "forecasts"))
    sentence = f"The learning curve says stop in {len(saved)} of {curves} curves"
    if saved:
        sentence += (
            f", which saves {sum(saved) / len(saved):.0f} boxes and loses "
            f"{100 * sum(lost) / len(lost):.1f} points of mAP@.5:.95 in the mean"
        )
    sentence += (
        f". Its 95 % interval of the gain up to the last cycle has the measured gain in {covered} of "
        f"{forecasts} forecasts."
    )
    parts = (
        escape_markdown(simulation_title(result)),
        markdown_table(HEAD, rows),
        _pairs_sentence(result),
        sentence,
    )
    return "\n\n".join(part for part in parts if part)


def _pairs_sentence(result: Json) -> str:
    """Pairs of strategies whose means over the boxes differ, paired by seed; empty with one seed."""
    seeds = {row["strategy"]: row["map50_by_boxes"]["seeds"] for row in result["areas"]}
    if min(map(len, seeds.values())) < 2:
        return ""
    tests = {pair: paired_t_test(seeds[pair[0]], seeds[pair[1]]) for pair in permutations(seeds, 2)}
    pairs = ", ".join(
        f"{escape_markdown(higher)} above {escape_markdown(lower)} (+{test.delta:.3f} "
        f"[{test.ci95[0]:+.3f}, {test.ci95[1]:+.3f}])"
        for (higher, lower), test in tests.items()
        if test.ci95[0] > 0
    )
    return (
        f"Of all {len(tests) // 2} pairs, these differ in the mean over the boxes (95 %, paired by seed, not "
        f"corrected for the number of pairs): {pairs or 'none'}."
    )


def _difference(comparison: Json | None) -> str:
    if comparison is None:
        return "-"
    interval = comparison["ci95"]
    return f"{comparison['delta']:+.3f}" + (f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "")


def _mean(value: Json) -> str:
    """The mean over the seeds that reach it, and how many those are."""
    reached = sum(v is not None for v in value["seeds"])
    return "not reached" if not reached else f"{value['mean']:.0f} ({reached} of {len(value['seeds'])} seeds)"
