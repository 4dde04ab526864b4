"""Checks ``better`` and ``min_gain``: the candidate's mAP@.5:.95 is above the champion's."""

from __future__ import annotations

from dsmoe_core.evaluation.paired_predictions import min_units
from pipelines.rounds.gate.check import CheckResult, Comparison, Outcome, without_predictions


def better(comparison: Comparison) -> CheckResult:
    """The interval of the gain in mAP@.5:.95 lies above ``gate.min_gain``.

    The gain is compared by a paired bootstrap of the test images, or of groups of them. Not enough evidence:
    the interval contains ``min_gain``, or the test set has too few images or groups for any interval.
    """
    paired, settings = comparison.paired, comparison.settings
    if paired is None:
        return without_predictions("mAP")
    unit = "groups" if settings.group_pattern else "images"
    if not paired.enough_units:
        needed = min_units(paired.confidence)
        reason = f"the test set has {paired.units} {unit} with boxes; at least {needed} can show a gain"
        return CheckResult(Outcome.NOT_ENOUGH_EVIDENCE, reason, {unit: paired.units, "needed": needed})
    gain = paired.mean_difference()
    if gain is None:
        return CheckResult(Outcome.NOT_ENOUGH_EVIDENCE, "the test set has no box")
    low, high = gain.interval
    values = {
        "candidate": gain.first,
        "champion": gain.second,
        "gain": gain.delta,
        "low": low,
        "high": high,
        "min_gain": settings.min_gain,
        "confidence": paired.confidence,
        unit: paired.units,
    }
    margin = f"{settings.min_gain:.3f}" if settings.min_gain else "0"
    figures = f"mAP {gain.first:.3f}, champion {gain.second:.3f}, gain {gain.delta:+.3f}"
    figures += f" [{low:+.3f}, {high:+.3f}]"
    if low > settings.min_gain:
        return CheckResult(Outcome.PASS, figures, values)
    if gain.delta <= settings.min_gain:
        return CheckResult(Outcome.FAIL, f"{figures} is not above {margin}", values)
    reason = f"{figures} on {paired.units} {unit} is not certainly above {margin}"
    return CheckResult(Outcome.NOT_ENOUGH_EVIDENCE, reason, values)


def min_gain(comparison: Comparison) -> CheckResult:
    """mAP@.5:.95 exceeds the champion's by more than ``gate.min_gain``, whatever its uncertainty."""
    if comparison.candidate is None or comparison.champion is None:
        return without_predictions("mAP")
    candidate, champion = comparison.candidate.map, comparison.champion.map
    gain = comparison.settings.min_gain
    margin = f" + {gain:.3f}" if gain else ""
    values = {"candidate": candidate, "champion": champion, "min_gain": gain}
    if candidate > champion + gain:
        return CheckResult(Outcome.PASS, f"mAP {candidate:.3f} > {champion:.3f}{margin}", values)
    reason = f"mAP {candidate:.3f} is not above the champion's {champion:.3f}{margin}"
    return CheckResult(Outcome.FAIL, reason, values)
