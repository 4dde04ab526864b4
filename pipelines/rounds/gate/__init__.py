"""Promotion gate: checks that a candidate must pass to become champion. ``gate.checks`` names the entries.

To add a check, write a function from ``Comparison`` to ``CheckResult``, and add an entry to ``GATE_CHECKS``.
Its thresholds are fields of ``GateSettings``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dsmoe_core.errors import SettingsError
from pipelines.rounds.gate.better import better, min_gain
from pipelines.rounds.gate.check import CheckResult, Comparison, GateCheck, Latency, Outcome
from pipelines.rounds.gate.class_margin import class_margin, evidence
from pipelines.rounds.gate.labels import labels
from pipelines.rounds.gate.service import calibration, descriptions, latency

__all__ = [
    "GATE_CHECKS",
    "CheckResult",
    "Comparison",
    "Decision",
    "GateCheck",
    "Latency",
    "Outcome",
    "Verdict",
    "decide",
    "gate_checks",
]

Verdict = Literal["promoted", "refused", "not enough evidence", "held", "shadow"]
"""``held``: waits for approval; ``shadow``: predicts with the champion on the images of the next round."""

GATE_CHECKS: dict[str, GateCheck] = {
    "better": GateCheck("the interval of the gain in mAP@.5:.95 lies above gate.min_gain", better),
    "min_gain": GateCheck(
        "mAP@.5:.95 exceeds the champion's by more than gate.min_gain, whatever its uncertainty", min_gain
    ),
    "class_margin": GateCheck("no class loses more mAP@.5:.95 than gate.class_margin", class_margin),
    "labels": GateCheck(
        "in no round with new images is the share of probable label errors certainly higher than in the test "
        "set by gate.max_label_errors",
        labels,
        needs_test_set=False,
    ),
    "calibration": GateCheck(
        "the expected calibration error is at most gate.max_calibration_error", calibration
    ),
    "latency": GateCheck("time per image is at most the champion's times gate.max_latency_factor", latency),
    "descriptions": GateCheck(
        "the evaluation of the published class book is not worse", descriptions, needs_test_set=False
    ),
    "evidence": GateCheck("every class has at least gate.min_boxes boxes in the test set", evidence),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate decides about a candidate.

    Attributes:
        reason: for people; starts with the verdict.
        results: of each check that was made, by its name.
    """

    verdict: Verdict
    reason: str
    results: Mapping[str, CheckResult] = field(default_factory=dict)

    @property
    def promoted(self) -> bool:
        """Whether the candidate becomes champion."""
        return self.verdict == "promoted"

    @property
    def failed(self) -> bool:
        """Whether a check failed, rather than had too little evidence."""
        return any(result.outcome is Outcome.FAIL for result in self.results.values())


def gate_checks(names: Sequence[str]) -> dict[str, GateCheck]:
    """The checks of these names.

    Raises:
        SettingsError: there is no check of a name.
    """
    if unknown := [name for name in names if name not in GATE_CHECKS]:
        raise SettingsError(
            f"gate.checks has {', '.join(map(repr, unknown))}; expected only: {', '.join(GATE_CHECKS)}",
            "Correct it in dsmoe.yaml.",
        )
    return {name: GATE_CHECKS[name] for name in names}


def decide(comparison: Comparison) -> Decision:
    """Promote the candidate if it passes all checks of the settings.

    It is refused if a check fails; otherwise there is not enough evidence if a check says so. Without a test
    set only the checks are made that need none.

    Raises:
        SettingsError: the settings name an unknown check.
    """
    checks = gate_checks(comparison.settings.checks)
    without_test_set = comparison.candidate is None or comparison.champion is None
    made = {n: check for n, check in checks.items() if not (without_test_set and check.needs_test_set)}
    results = {name: check.check(comparison) for name, check in made.items()}
    verdicts: dict[Outcome, Verdict] = {
        Outcome.FAIL: "refused",
        Outcome.NOT_ENOUGH_EVIDENCE: "not enough evidence",
        Outcome.PASS: "promoted",
    }
    outcomes = {result.outcome for result in results.values()} or {Outcome.PASS}
    decisive = next(outcome for outcome in verdicts if outcome in outcomes)
    reasons = [result.reason for result in results.values() if result.outcome is decisive]
    if without_test_set and decisive is Outcome.PASS:
        reasons = ["there is no test set to evaluate it on", *reasons]
    verdict = verdicts[decisive]
    return Decision(verdict, f"{verdict}: {'; '.join(reasons) or 'no check is set'}", results)
