"""Rows of result files: the figures of one contestant over the seeds, and whether two contestants differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsmoe_core.evaluation.bootstrap import Comparison
from dsmoe_core.evaluation.seed_stats import PairedTest
from pipelines.benchmarks.comparison.run_store import Result
from pipelines.evaluation.report.paired import paired_tests

FIGURES = ("map50", "map", "precision", "recall", "f1")


def row(results: Sequence[Result]) -> dict[str, Any]:
    """One contestant's figures, one a seed as in ``seeds``; ``errors`` is each kind's cost in mAP@.5."""
    answer: dict[str, Any] = {"seeds": [one.seed for one in results]}
    for name in ("epochs", "minutes"):
        if known := [one.kept[name] for one in results if name in one.kept]:
            answer[name] = round(float(np.mean(known)), 2)
    for name in FIGURES:
        answer[name] = [round(one.total[name], 4) for one in results]
    figures = [one.kept["figures"] for one in results]
    answer["classes"] = {label: _class(label, figures) for label in _labels(figures)}
    answer["errors"] = {
        cost["kind"]: [round(_of(one["errors"], "kind", cost["kind"])["map50_gain"], 4) for one in figures]
        for cost in figures[0]["errors"]
    }
    return answer


def differences(one: Sequence[Result], other: Sequence[Result]) -> list[dict[str, Any]]:
    """Whether the first one's mAP@.5:.95 is another than the second one's, on the seeds that both have.

    One entry a test of :class:`pipelines.evaluation.report.paired.PairedTests` that there is.
    """
    pairs = [(a, b) for a in one for b in other if a.seed == b.seed]
    if not pairs:
        return []
    ours, theirs = zip(*pairs, strict=True)
    over = paired_tests(
        [one.total["map"] for one in ours],
        [one.total["map"] for one in theirs],
        ([one.resampled[:, 1] for one in ours], [one.resampled[:, 1] for one in theirs]),
    )
    return [_test(kind, test) for kind, test in over._asdict().items() if test is not None]


def _test(over: str, test: PairedTest | Comparison) -> dict[str, Any]:
    ends = [round(end, 4) for end in test.ci95]
    return {"over": over, "delta_map": round(test.delta, 4), "ci95": ends, "p": round(test.p, 5)}


def _labels(figures: Sequence[dict[str, Any]]) -> list[str]:
    """Classes with a true box."""
    return [entry["name"] for entry in figures[0]["classes"] if entry["boxes"]]


def _class(label: str, figures: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    entries = [_of(one["classes"], "name", label) for one in figures]
    return {
        "map50": [round(entry["map50"], 4) for entry in entries],
        "recall": [round(entry.get("best", {}).get("recall", 0.0), 4) for entry in entries],
    }


def _of(entries: Sequence[dict[str, Any]], key: str, value: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry[key] == value)
