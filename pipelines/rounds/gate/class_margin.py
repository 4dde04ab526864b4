"""Checks ``class_margin`` and ``evidence``: single classes of the test set."""

from __future__ import annotations

from typing import Any

from dsmoe_core.evaluation.paired_predictions import Difference
from pipelines.rounds.gate.check import CheckResult, Comparison, Outcome, without_predictions


def class_margin(comparison: Comparison) -> CheckResult:
    """No class loses more mAP@.5:.95 than its margin, ``gate.class_margin`` or ``gate.class_margins``.

    It fails if the whole interval of a class is a larger loss, or if the candidate has no correct detection
    of a class that the champion detects. Not enough evidence: the estimated loss of a class is larger than
    its margin, but the interval contains a smaller one. Classes with fewer than ``gate.min_boxes`` boxes fail
    if they are lost, and count as passed otherwise, as their estimates mean little.
    """
    paired, settings = comparison.paired, comparison.settings
    if paired is None:
        return without_predictions("classes")
    failed, uncertain, values = [], [], {}
    for name, boxes in paired.boxes.items():
        loss = paired.class_difference(name)
        if loss is None:
            continue
        margin = settings.margin(name)
        outcome = _outcome(loss, margin, enough=boxes >= settings.min_boxes)
        values[name] = _values(loss, margin, boxes, outcome)
        text = f"{name} {loss.first:.3f}, champion {loss.second:.3f}, margin {margin:.3f}"
        if outcome is Outcome.FAIL:
            failed.append(text)
        elif outcome is Outcome.NOT_ENOUGH_EVIDENCE:
            low, high = loss.interval
            uncertain.append(f"{text}, difference {loss.delta:+.3f} [{low:+.3f}, {high:+.3f}]")
    result = {"classes": values}
    if failed:
        return CheckResult(Outcome.FAIL, f"classes that lost too much: {'; '.join(failed)}", result)
    if uncertain:
        reason = f"classes that may have lost too much: {'; '.join(uncertain)}"
        return CheckResult(Outcome.NOT_ENOUGH_EVIDENCE, reason, result)
    return CheckResult(Outcome.PASS, "no class lost more than its margin", result)


def _outcome(loss: Difference, margin: float, *, enough: bool) -> Outcome:
    """The outcome for one class.

    Args:
        enough: whether it has enough test boxes for an estimate.
    """
    lost = loss.second > 0 and loss.first == 0
    if lost:
        return Outcome.FAIL
    if not enough or loss.delta >= -margin:
        return Outcome.PASS
    return Outcome.FAIL if loss.interval[1] < -margin else Outcome.NOT_ENOUGH_EVIDENCE


def _values(loss: Difference, margin: float, boxes: int, outcome: Outcome) -> dict[str, Any]:
    return {
        "candidate": loss.first,
        "champion": loss.second,
        "difference": loss.delta,
        "low": loss.interval[0],
        "high": loss.interval[1],
        "margin": margin,
        "boxes": boxes,
        "outcome": str(outcome),
    }


def evidence(comparison: Comparison) -> CheckResult:
    """Every class of the class book has at least ``gate.min_boxes`` boxes in the test set."""
    if comparison.paired is None:
        return without_predictions("boxes of the test set")
    boxes, needed = comparison.paired.boxes, comparison.settings.min_boxes
    few = {name: count for name, count in boxes.items() if count < needed}
    values = {"boxes": boxes, "min_boxes": needed}
    if not few:
        return CheckResult(Outcome.PASS, f"every class has at least {needed} test boxes", values)
    listed = ", ".join(f"{name} {count}" for name, count in few.items())
    reason = f"classes with fewer than {needed} test boxes: {listed}"
    return CheckResult(Outcome.NOT_ENOUGH_EVIDENCE, reason, values)
