"""Promotion gate: checks that a candidate must pass to become champion. ``gate.checks`` names the entries.

To add a check, write a function from ``Comparison`` to ``CheckResult``, and add an entry to ``GATE_CHECKS``.
Its thresholds are fields of ``GateSettings``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dsmoe_core.errors import SettingsError
from pipelines.settings.rounds import GateSettings
from pipelines.workspace.registry import Metrics


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate and the champion, evaluated on the same test set and class book."""

    candidate: Metrics
    champion: Metrics
    settings: GateSettings


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of one check.

    Attributes:
        reason: why it passed or failed, with its values, as a clause such as "mAP 0.310 > 0.250".
        values: the numbers that it compared, by name.
    """

    passed: bool
    reason: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One check of the gate.

    Attributes:
        description: what a candidate must fulfil, in one sentence.
    """

    description: str
    check: Callable[[Comparison], CheckResult]


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a candidate is promoted.

    Attributes:
        reason: for people; starts with "promoted" or "refused".
        results: of each check that was made, by its name.
    """

    promoted: bool
    reason: str
    results: Mapping[str, CheckResult] = field(default_factory=dict)


def min_gain(comparison: Comparison) -> CheckResult:
    """mAP@.5:.95 exceeds the champion's by more than ``gate.min_gain``."""
    candidate, champion = comparison.candidate.map, comparison.champion.map
    gain = comparison.settings.min_gain
    margin = f" + {gain:.3f}" if gain else ""
    passed = candidate > champion + gain
    if passed:
        reason = f"mAP {candidate:.3f} > {champion:.3f}{margin}"
    else:
        reason = f"mAP {candidate:.3f} is not above the champion's {champion:.3f}{margin}"
    return CheckResult(passed, reason, {"candidate": candidate, "champion": champion, "min_gain": gain})


GATE_CHECKS: dict[str, GateCheck] = {
    "min_gain": GateCheck("mAP@.5:.95 exceeds the champion's by more than gate.min_gain", min_gain),
}


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


def decide(candidate: Metrics | None, champion: Metrics | None, settings: GateSettings) -> Decision:
    """Promote the candidate if it passes all checks of the settings.

    Args:
        candidate: None if there is no test set; then it is promoted without checks.
        champion: None if there is no champion yet; then the candidate is promoted without checks.

    Raises:
        SettingsError: the settings name an unknown check.
    """
    checks = gate_checks(settings.checks)
    if candidate is None:
        return Decision(True, "promoted: there is no test set to evaluate it on")
    if champion is None:
        return Decision(True, f"promoted: first model, mAP {candidate.map:.3f}")
    comparison = Comparison(candidate, champion, settings)
    results = {name: check.check(comparison) for name, check in checks.items()}
    promoted = all(result.passed for result in results.values())
    reasons = [result.reason for result in results.values() if promoted or not result.passed]
    verdict = "promoted" if promoted else "refused"
    return Decision(promoted, f"{verdict}: {'; '.join(reasons) or 'no check is set'}", results)
