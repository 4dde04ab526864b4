"""The learning-curve part of the stop signal on simulated curves: boxes saved, accuracy lost, coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dsmoe_core.evaluation.learning_curve import fit_learning_curve
from pipelines.rounds.stopping import HORIZON_BOXES, MIN_GAIN

Cycle = Mapping[str, Any]
MIN_CYCLES = 2
"""Cycles from which on a curve is fitted."""


def stopping_row(strategy: str, by_seed: Sequence[Sequence[Cycle]]) -> dict[str, Any]:
    """What stopping by the extrapolated curve would have saved, with the metric mAP@.5:.95.

    A curve stops at the first cycle after which the upper end of the gain by ``HORIZON_BOXES`` boxes is below
    ``MIN_GAIN``; the agreement of successive models, the other part of the signal, is not looked at.

    Args:
        by_seed: the cycles of a strategy of each seed, the initial set first.

    Returns:
        By seed ``boxes_saved`` and ``map_lost`` against labelling to the last cycle; null where it does not
        stop. ``covered`` of ``forecasts``: from how many cycles the 95 % interval of the gain up to the last
        cycle has the measured gain. The interval is that of the curve, without the noise of one training.
    """
    stops = [_stop(cycles) for cycles in by_seed]
    forecasts = [inside for cycles in by_seed for inside in _forecasts(cycles)]
    return {
        "strategy": strategy,
        "horizon_boxes": HORIZON_BOXES,
        "boxes_saved": [None if stop is None else stop[0] for stop in stops],
        "map_lost": [None if stop is None else round(stop[1], 4) for stop in stops],
        "forecasts": len(forecasts),
        "covered": sum(forecasts),
    }


def _stop(cycles: Sequence[Cycle]) -> tuple[int, float] | None:
    """Boxes saved and mAP lost at the first cycle that stops before the last one."""
    last = cycles[-1]
    for end in range(MIN_CYCLES, len(cycles)):
        curve = fit_learning_curve(*_points(cycles[:end]))
        if curve is not None and curve.gain(HORIZON_BOXES).high < MIN_GAIN:
            here = cycles[end - 1]
            return last["boxes"] - here["boxes"], last["map"] - here["map"]
    return None


def _forecasts(cycles: Sequence[Cycle]) -> list[bool]:
    """Whether the interval of the gain up to the last cycle has the measured gain, by cycle."""
    inside = []
    for end in range(MIN_CYCLES, len(cycles)):
        curve, here, last = fit_learning_curve(*_points(cycles[:end])), cycles[end - 1], cycles[-1]
        if curve is not None and last["boxes"] > here["boxes"]:
            gain = curve.gain(last["boxes"] - here["boxes"])
            inside.append(gain.low <= last["map"] - here["map"] <= gain.high)
    return inside


def _points(cycles: Sequence[Cycle]) -> tuple[list[float], list[float]]:
    known = [cycle for cycle in cycles if cycle["boxes"]]
    return [float(cycle["boxes"]) for cycle in known], [float(cycle["map"]) for cycle in known]
