"""The promotion gate: its registry, and the decision on a candidate."""

from __future__ import annotations

import pytest

from dsmoe_core.errors import SettingsError
from pipelines.rounds.gate import (
    GATE_CHECKS,
    CheckResult,
    Comparison,
    GateCheck,
    Outcome,
    decide,
    gate_checks,
)
from pipelines.settings.gate import GateSettings
from pipelines.workspace.registry import Metrics
from prompts.evaluation_report import TextEvaluationReport

MIN_GAIN = GateSettings(checks=("min_gain",))


def metrics(value: float) -> Metrics:
    return Metrics(map50=value, map=value, precision=1, recall=1, f1=1, per_class={}, evaluated_on="t+b")


@pytest.mark.parametrize(
    ("candidate", "champion", "gain", "passed"),
    [
        (0.31, 0.25, 0.0, True),
        (0.25, 0.25, 0.0, False),
        (0.2, 0.25, 0.0, False),
        (0.26, 0.25, 0.02, False),
        (0.28, 0.25, 0.02, True),
    ],
)
def test_min_gain_compares_the_candidate_with_the_champion(
    candidate: float, champion: float, gain: float, passed: bool
) -> None:
    settings = GateSettings(checks=("min_gain",), min_gain=gain)
    decision = decide(Comparison(metrics(candidate), metrics(champion), settings))
    assert decision.promoted == passed
    assert decision.verdict == ("promoted" if passed else "refused")
    result = decision.results["min_gain"]
    assert (result.outcome is Outcome.PASS) == passed
    assert result.values == {"candidate": candidate, "champion": champion, "min_gain": gain}
    assert f"{candidate:.3f}" in decision.reason
    assert f"{champion:.3f}" in decision.reason


@pytest.mark.parametrize(
    ("outcome", "verdict", "failed"),
    [
        (Outcome.PASS, "promoted", False),
        (Outcome.FAIL, "refused", True),
        (Outcome.NOT_ENOUGH_EVIDENCE, "not enough evidence", False),
    ],
)
@pytest.mark.parametrize("gains", [True, False])
def test_every_check_of_the_settings_counts(
    outcome: Outcome, verdict: str, failed: bool, gains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recall(comparison: Comparison) -> CheckResult:
        return CheckResult(outcome, "recall 0.4", {"recall": 0.4})

    monkeypatch.setitem(GATE_CHECKS, "recall", GateCheck("recall is high enough", recall))
    both = GateSettings(checks=("min_gain", "recall"))
    decision = decide(Comparison(metrics(0.9 if gains else 0.05), metrics(0.1), both))
    assert decision.verdict == (verdict if gains else "refused")
    assert decision.failed == (failed or not gains)
    assert decision.reason.startswith(decision.verdict)
    assert decision.results["recall"].to_dict() == {
        "outcome": str(outcome),
        "reason": "recall 0.4",
        "values": {"recall": 0.4},
    }
    assert decide(Comparison(metrics(0.9), metrics(0.1), MIN_GAIN)).promoted  # a check that is not set


def test_without_checks_every_candidate_is_promoted() -> None:
    assert decide(Comparison(metrics(0.1), metrics(0.9), GateSettings(checks=()))).promoted


def test_without_a_test_set_the_checks_that_need_none_are_made() -> None:
    settings = GateSettings(checks=("better", "min_gain", "descriptions"))
    found = decide(Comparison(None, None, settings))
    assert (found.verdict, list(found.results)) == ("promoted", ["descriptions"])
    assert "no test set" in found.reason
    worse = TextEvaluationReport(
        book="b", against="a", model="m", data="d", verdict="worse", reason="r", made="2026-11-30"
    )
    refused = decide(Comparison(None, None, settings, class_book_report=worse))
    assert (refused.verdict, list(refused.results)) == ("refused", ["descriptions"])


def test_default_checks_are_registered() -> None:
    assert list(gate_checks(GateSettings().checks)) == ["better", "class_margin", "labels"]


def test_unknown_check_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'max_latency'.* min_gain"):
        gate_checks(("min_gain", "max_latency"))


@pytest.mark.parametrize("name", [name for name in GATE_CHECKS if name not in ("min_gain", "descriptions")])
def test_without_predictions_there_is_not_enough_evidence(name: str) -> None:
    settings = GateSettings(checks=(name,))
    assert decide(Comparison(metrics(0.9), metrics(0.1), settings)).verdict == "not enough evidence"
