"""Learning curves of a simulation, the effort to a share of the full accuracy, and differences to random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.evaluation.seed_stats import mean_over_seeds, paired_t_test
from pipelines.benchmarks.simulation.stopping import stopping_row
from pipelines.benchmarks.simulation.trajectory import FULL, INITIAL

Cycle = Mapping[str, Any]
SeedResults = Mapping[str, Sequence[Cycle]]
"""The cycles of one seed by cell: ``INITIAL``, ``FULL`` and the strategies."""
EFFORTS = ("images", "boxes", "minutes")
METRICS = ("map50", "map")
SHARES = (0.9, 0.95)
BASELINE = "random"
_DIGITS = 4
_ROUNDING = 1e-9


def summarise(results: Mapping[int, SeedResults], strategies: Sequence[str]) -> dict[str, Any]:
    """The parts of the result file that are measured.

    Args:
        results: by seed, at least one.

    Returns:
        ``full``: accuracy with all labels; ``curves``: a row per strategy and cycle, mean over the seeds with
        95 % intervals (Student's t; null with one seed) and values by seed; ``areas`` and ``efforts``: a row
        per strategy; ``differences``: a row per strategy against ``random``, paired by seed;
        ``stopping``: see ``stopping_row``.
    """
    seeds = sorted(results)
    full = {metric: [float(results[seed][FULL][0][metric]) for seed in seeds] for metric in METRICS}
    curves = {name: [curve_of(results[seed], name) for seed in seeds] for name in strategies}
    areas = {name: _areas(curves, name, len(seeds)) for name in strategies}
    targets = {metric: float(np.mean(values)) for metric, values in full.items()}
    return {
        "full": {metric: _over_seeds(values) for metric, values in full.items()},
        "curves": [row for name in strategies for row in _curve_rows(name, curves[name])],
        "areas": [
            {"strategy": name, **{measure: _over_seeds(values) for measure, values in areas[name].items()}}
            for name in strategies
        ],
        "efforts": [_effort_row(name, curves[name], targets) for name in strategies],
        "differences": _differences(curves, areas),
        "stopping": [stopping_row(name, curves[name]) for name in strategies],
    }


def curve_of(results: SeedResults, strategy: str) -> list[Cycle]:
    """The cycles of a strategy, with the initial set first."""
    return [*results[INITIAL], *results[strategy]]


def area(curve: Sequence[Cycle], effort: str, metric: str, start: float, end: float) -> float:
    """Mean of a metric over an effort from ``start`` to ``end``, linear between the cycles.

    The metric of the nearest cycle holds outside of the curve.
    """
    x, y = _columns(curve, effort, metric)
    if end <= start:
        return float(np.interp(start, x, y))
    grid = np.unique(np.concatenate([[start, end], x[(x > start) & (x < end)]]))
    return float(np.trapezoid(np.interp(grid, x, y), grid) / (end - start))


def effort_to(curve: Sequence[Cycle], effort: str, metric: str, target: float) -> float | None:
    """The effort at which a metric first reaches a target, linear between the cycles; None if it does not."""
    x, y = _columns(curve, effort, metric)
    for i, value in enumerate(y):
        if value >= target - _ROUNDING:
            if i == 0 or y[i - 1] >= value:
                return float(x[i])
            return float(x[i - 1] + (target - y[i - 1]) / (value - y[i - 1]) * (x[i] - x[i - 1]))
    return None


def _columns(
    curve: Sequence[Cycle], effort: str, metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return (
        np.array([cycle[effort] for cycle in curve], dtype=np.float64),
        np.array([cycle[metric] for cycle in curve], dtype=np.float64),
    )


def _areas(curves: Mapping[str, list[list[Cycle]]], name: str, seeds: int) -> dict[str, list[float]]:
    """Area under each curve by seed, over the effort that all strategies of the seed reach."""
    found: dict[str, list[float]] = {}
    for effort in EFFORTS:
        for metric in METRICS:
            values = []
            for seed in range(seeds):
                start = float(curves[name][seed][0][effort])
                end = min(float(curve[seed][-1][effort]) for curve in curves.values())
                values.append(area(curves[name][seed], effort, metric, start, end))
            found[f"{metric}_by_{effort}"] = values
    return found


def _curve_rows(name: str, by_seed: Sequence[Sequence[Cycle]]) -> list[dict[str, Any]]:
    rows = []
    for number in range(min(len(curve) for curve in by_seed)):
        cycles = [curve[number] for curve in by_seed]
        classes = sorted({label for cycle in cycles for label in cycle["per_class"]})
        per_class = {
            label: {m: _over_seeds([float(c["per_class"][label][m]) for c in cycles]) for m in METRICS}
            for label in classes
            if all(label in c["per_class"] for c in cycles)
        }
        values = {key: _over_seeds([float(c[key]) for c in cycles]) for key in (*EFFORTS, *METRICS)}
        rows.append({"strategy": name, "cycle": number, **values, "per_class": per_class})
    return rows


def _effort_row(
    name: str, by_seed: Sequence[Sequence[Cycle]], targets: Mapping[str, float]
) -> dict[str, Any]:
    """Efforts to the shares of the accuracy with all labels; null for a seed that does not reach it."""
    row: dict[str, Any] = {"strategy": name}
    for metric, target in targets.items():
        for share in SHARES:
            for effort in EFFORTS:
                values = [effort_to(curve, effort, metric, share * target) for curve in by_seed]
                row[f"{effort}_to_{round(100 * share)}_{metric}"] = _over_seeds(values)
    return row


def _differences(
    curves: Mapping[str, list[list[Cycle]]], areas: Mapping[str, dict[str, list[float]]]
) -> list[dict[str, Any]]:
    """Areas and final accuracies of each strategy minus those of ``random``."""
    if BASELINE not in curves:
        return []
    finals = {
        name: {f"final_{m}": [float(curve[-1][m]) for curve in by_seed] for m in METRICS}
        for name, by_seed in curves.items()
    }
    measures = {name: {**areas[name], **finals[name]} for name in curves}
    return [
        {
            "strategy": name,
            "against": BASELINE,
            **{m: _paired(values, measures[BASELINE][m]) for m, values in measures[name].items()},
        }
        for name in curves
        if name != BASELINE
    ]


def _paired(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    if len(first) < 2:
        return {"delta": round(first[0] - second[0], _DIGITS), "ci95": None, "p": None}
    test = paired_t_test(first, second)
    interval = [round(end, _DIGITS) for end in test.ci95]
    return {"delta": round(test.delta, _DIGITS), "ci95": interval, "p": round(test.p, 5)}


def _over_seeds(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and 95 % interval of the known values, and all values by seed."""
    known = [value for value in values if value is not None]
    mean = float(np.mean(known)) if known else None
    interval = mean_over_seeds(known).ci95 if len(known) > 1 else None
    return {
        "mean": None if mean is None else round(mean, _DIGITS),
        "ci95": None if interval is None else [round(end, _DIGITS) for end in interval],
        "seeds": [None if value is None else round(value, _DIGITS) for value in values],
    }
