"""Check ``labels``: few of the labels that are new to the candidate are probably wrong."""

from __future__ import annotations

from scipy.stats import binomtest

from pipelines.label_errors.new_labels import NewLabels
from pipelines.rounds.gate.check import CheckResult, Comparison, Outcome
from pipelines.settings.gate import GateSettings


def labels(comparison: Comparison) -> CheckResult:
    """The share of probable errors in the new labels is not certainly above ``gate.max_label_errors``.

    A candidate can gain on the test set although many of its new labels are wrong, as long as the model still
    improves by training longer. It fails if the lower limit of the share (Wilson, two-sided, with
    ``gate.confidence``) is above the setting. The labels are compared with the predictions of models that
    were not trained on them, so labels without such a prediction count as passed.
    """
    if comparison.check_new_labels is None:
        return CheckResult(Outcome.NOT_ENOUGH_EVIDENCE, "the new labels were not compared with predictions")
    return judge(comparison.check_new_labels(), comparison.settings)


def judge(new: NewLabels, settings: GateSettings) -> CheckResult:
    """See ``labels``."""
    values = {**new._asdict(), "limit": settings.max_label_errors}
    if not new.defects:
        return CheckResult(Outcome.PASS, "no new label can be compared with a prediction", values)
    interval = binomtest(new.errors, new.defects).proportion_ci(settings.confidence, method="wilson")
    share, low = new.errors / new.defects, float(interval.low)
    values |= {"share": share, "low": low, "high": float(interval.high)}
    reason = f"{new.errors} of {new.defects} new labels are probably wrong"
    if low <= settings.max_label_errors:
        return CheckResult(Outcome.PASS, reason, values)
    reason += (
        f" ({share:.1%}, at least {low:.1%}; limit {settings.max_label_errors:.1%}); "
        "`dsmoe label-errors` lists them"
    )
    return CheckResult(Outcome.FAIL, reason, values)
