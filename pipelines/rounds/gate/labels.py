"""Check ``labels``: few labels of the images that are new to the candidate are probably wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scipy.stats import binomtest

from pipelines.label_errors.new_labels import NewLabels
from pipelines.rounds.gate.check import CheckResult, Comparison, Outcome
from pipelines.settings.gate import GateSettings

MIN_ERRORS = 3
"""A round with fewer probable errors passes, whatever their share."""


def labels(comparison: Comparison) -> CheckResult:
    """In no round with new images is the share of probable errors certainly above ``gate.max_label_errors``.

    A candidate can gain on the test set although many of its new labels are wrong, as long as the model still
    improves by training longer. It fails if the lower limit of the share (Wilson, two-sided, with
    ``gate.confidence``) of one round is above the setting. The labels are compared with the predictions of
    models that were not trained on them, so labels without such a prediction count as passed.
    """
    if comparison.check_new_labels is None:
        return CheckResult(Outcome.NOT_ENOUGH_EVIDENCE, "the new labels were not compared with predictions")
    return judge(comparison.check_new_labels(), comparison.settings)


def judge(rounds: Sequence[NewLabels], settings: GateSettings) -> CheckResult:
    """See ``labels``; the reason names the round with the highest lower limit."""
    rows = [_values(new, settings.confidence) for new in rounds]
    values = {"rounds": rows, "limit": settings.max_label_errors}
    left_out = sum(new.left_out for new in rounds)
    without = f"; {left_out} images have no prediction to compare with" if left_out else ""
    compared = [row for row in rows if row["defects"]]
    if not compared:
        return CheckResult(Outcome.PASS, f"no new label was compared with a prediction{without}", values)
    worst = max(compared, key=lambda row: float(row["low"]))
    where = "no round" if worst["round"] is None else f"round {worst['round']}"
    reason = f"{worst['errors']} of {worst['defects']} labels of {where} are probably wrong"
    if worst["errors"] < MIN_ERRORS or worst["low"] <= settings.max_label_errors:
        return CheckResult(Outcome.PASS, reason + without, values)
    reason += (
        f" ({worst['share']:.1%}, at least {worst['low']:.1%}; limit {settings.max_label_errors:.1%}); "
        f"`dsmoe label-errors` ranks them{without}"
    )
    return CheckResult(Outcome.FAIL, reason, values)


def _values(new: NewLabels, confidence: float) -> dict[str, Any]:
    """The counts of a round, and its share of errors with the interval, as JSON values."""
    if not new.defects:
        return new._asdict()
    interval = binomtest(new.errors, new.defects).proportion_ci(confidence, method="wilson")
    share = {"share": new.errors / new.defects, "low": float(interval.low), "high": float(interval.high)}
    return {**new._asdict(), **share}
