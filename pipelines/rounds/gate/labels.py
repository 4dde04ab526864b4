"""Check ``labels``: few labels of the images that are new to the candidate are probably wrong."""

from __future__ import annotations

import math
from typing import Any

from scipy.stats import binomtest

from pipelines.label_errors.new_labels import CheckedLabels, NewLabels
from pipelines.rounds.gate.check import CheckResult, Comparison, Outcome
from pipelines.settings.gate import GateSettings

MIN_ERRORS = 3
"""A round with fewer probable errors passes, whatever their share."""


def labels(comparison: Comparison) -> CheckResult:
    """In no round with new images is the share of probable errors certainly too high.

    A candidate can gain on the test set although many of its new labels are wrong, as long as the model still
    improves by training longer. The share of probable errors is compared with that of the test set, because
    a model doubts some right labels too. It fails if the difference of one round is certainly above
    ``gate.max_label_errors``: the lower limit of its interval with ``gate.confidence`` (Newcombe, "Interval
    estimation for the difference between independent proportions", 1998, method 10) is. The labels are
    compared with the predictions of models that were not trained on them, so labels without such a prediction
    count as passed.
    """
    if comparison.check_new_labels is None:
        return CheckResult(Outcome.NOT_ENOUGH_EVIDENCE, "the new labels were not compared with predictions")
    return judge(comparison.check_new_labels(), comparison.settings)


def judge(checked: CheckedLabels, settings: GateSettings) -> CheckResult:
    """See ``labels``; the reason names the round with the highest lower limit."""
    reference, limit = checked.reference, settings.max_label_errors
    rows = [_values(new, reference, settings.confidence) for new in checked.rounds]
    values = {"rounds": rows, "reference": reference._asdict(), "limit": limit}
    left_out = sum(new.left_out for new in checked.rounds)
    without = f"; {left_out} images have no prediction to compare with" if left_out else ""
    compared = [row for row in rows if row["defects"]]
    if not compared:
        return CheckResult(Outcome.PASS, f"no new label was compared with a prediction{without}", values)
    worst = max(compared, key=lambda row: float(row["low"]))
    where = "no round" if worst["round"] is None else f"round {worst['round']}"
    reason = f"{worst['errors']} of {worst['defects']} labels of {where} are probably wrong"
    if reference.defects:
        reason += f", {reference.errors} of {reference.defects} of the test set"
    if worst["errors"] < MIN_ERRORS or worst["low"] <= limit:
        return CheckResult(Outcome.PASS, reason + without, values)
    reason += (
        f" (difference {worst['difference']:.1%}, at least {worst['low']:.1%}; limit {limit:.1%}); "
        f"dsmoe label-errors ranks them{without}"
    )
    return CheckResult(Outcome.FAIL, reason, values)


def _values(new: NewLabels, reference: NewLabels, confidence: float) -> dict[str, Any]:
    """The counts of a round, and how far its share of errors is above the reference, as JSON values."""
    if not new.defects:
        return new._asdict()
    share, low, high = _share(new, confidence)
    other, other_low, other_high = _share(reference, confidence) if reference.defects else (0.0, 0.0, 0.0)
    difference = share - other
    return {
        **new._asdict(),
        "difference": difference,
        "low": difference - math.hypot(share - low, other_high - other),
        "high": difference + math.hypot(high - share, other - other_low),
    }


def _share(counted: NewLabels, confidence: float) -> tuple[float, float, float]:
    """The share of errors with its Wilson interval."""
    interval = binomtest(counted.errors, counted.defects).proportion_ci(confidence, method="wilson")
    return counted.errors / counted.defects, float(interval.low), float(interval.high)
