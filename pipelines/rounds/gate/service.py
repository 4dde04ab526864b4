"""Checks of a candidate in use: ``calibration``, ``latency`` and ``descriptions``."""

from __future__ import annotations

from dsmoe_core.evaluation.calibration import calibration as measure_calibration
from pipelines.rounds.gate.check import CheckResult, Comparison, Outcome, without_predictions


def calibration(comparison: Comparison) -> CheckResult:
    """The expected calibration error of the candidate is at most ``gate.max_calibration_error``."""
    paired, limit = comparison.paired, comparison.settings.max_calibration_error
    if paired is None:
        return without_predictions("calibration")
    measured = measure_calibration(paired.matched(paired.first), seed=0)
    if measured.error is None:
        return CheckResult(Outcome.FAIL, "the candidate has no detection on the test set")
    values = {"error": measured.error, "limit": limit, "detections": measured.detections}
    outcome = Outcome.PASS if measured.error <= limit else Outcome.FAIL
    return CheckResult(outcome, f"calibration error {measured.error:.3f}, limit {limit:.3f}", values)


def latency(comparison: Comparison) -> CheckResult:
    """The milliseconds per image are at most the champion's times ``gate.max_latency_factor``."""
    if comparison.measure_latency is None:
        return CheckResult(Outcome.NOT_ENOUGH_EVIDENCE, "the latency was not measured")
    measured, factor = comparison.measure_latency(), comparison.settings.max_latency_factor
    values = {**measured._asdict(), "factor": factor}
    reason = f"{measured.candidate:.1f} ms per image, champion {measured.champion:.1f} ms, factor {factor:g}"
    outcome = Outcome.PASS if measured.candidate <= factor * measured.champion else Outcome.FAIL
    return CheckResult(outcome, reason, values)


def descriptions(comparison: Comparison) -> CheckResult:
    """The evaluation of the published class book did not end in "worse"; passed if there is none."""
    report = comparison.class_book_report
    if report is None:
        return CheckResult(Outcome.PASS, "the class book was published without an evaluation")
    outcome = {"worse": Outcome.FAIL, "undecided": Outcome.NOT_ENOUGH_EVIDENCE}.get(
        report.verdict, Outcome.PASS
    )
    reason = f"class book {report.book}: {report.reason}"
    return CheckResult(outcome, reason, {"book": report.book, "verdict": report.verdict})
