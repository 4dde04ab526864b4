"""Rows of result files: the figures of one contestant over the seeds, and whether two contestants differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsmoe_core.evaluation.bootstrap import compare
from dsmoe_core.evaluation.over_seeds import paired_t_test
from pipelines.benchmarks.contest.bouts import Result

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

    ``seeds``: Student's paired t over seeds, from two on. ``pictures``: the paired bootstrap over pictures,
    of the means over seeds; it says nothing of other trainings, the former nothing of other pictures.
    """
    pairs = [(a, b) for a in one for b in other if a.seed == b.seed]
    if not pairs:
        return []
    ours, theirs = zip(*pairs, strict=True)
    answer = []
    if len(pairs) > 1:
        test = paired_t_test([r.total["map"] for r in ours], [r.total["map"] for r in theirs])
        answer.append(_test("seeds", test.delta, test.ci95, test.p))
    delta = float(np.mean([a.total["map"] - b.total["map"] for a, b in pairs]))
    resampled = [np.mean([r.resampled[:, 1] for r in side], axis=0) for side in (ours, theirs)]
    compared = compare(delta, *resampled)
    if compared is not None:
        answer.append(_test("pictures", compared.delta, compared.ci95, compared.p))
    return answer


def _test(over: str, delta: float, ci95: tuple[float, float], p: float) -> dict[str, Any]:
    ends = [round(end, 4) for end in ci95]
    return {"over": over, "delta_map": round(delta, 4), "ci95": ends, "p": round(p, 5)}


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
