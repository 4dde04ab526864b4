"""The promotion gate: its checks, and the decision on a candidate."""

from __future__ import annotations

import pytest

from dsmoe_core.errors import SettingsError
from pipelines.rounds import gate
from pipelines.rounds.gate import CheckResult, Comparison, GateCheck, decide, gate_checks, min_gain
from pipelines.settings.rounds import GateSettings
from pipelines.workspace.registry import Metrics

DEFAULT = GateSettings()


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
    comparison = Comparison(metrics(candidate), metrics(champion), GateSettings(min_gain=gain))
    result = min_gain(comparison)
    assert result.passed == passed
    assert result.values == {"candidate": candidate, "champion": champion, "min_gain": gain}
    assert f"{candidate:.3f}" in result.reason
    assert f"{champion:.3f}" in result.reason


@pytest.mark.parametrize(("candidate", "champion"), [(None, None), (None, 0.9), (0.1, None)])
def test_candidate_is_promoted_without_checks_if_there_is_nothing_to_compare(
    candidate: float | None, champion: float | None
) -> None:
    decision = decide(
        None if candidate is None else metrics(candidate),
        None if champion is None else metrics(champion),
        DEFAULT,
    )
    assert decision.promoted
    assert decision.results == {}


@pytest.mark.parametrize(("candidate", "promoted"), [(0.31, True), (0.25, False)])
def test_decision_has_the_results_of_its_checks(candidate: float, promoted: bool) -> None:
    decision = decide(metrics(candidate), metrics(0.25), DEFAULT)
    assert decision.promoted == promoted
    assert decision.reason.startswith("promoted" if promoted else "refused")
    assert {name: result.passed for name, result in decision.results.items()} == {"min_gain": promoted}


def test_candidate_must_pass_every_check_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def min_recall(comparison: Comparison) -> CheckResult:
        return CheckResult(False, "recall 0.4 < 0.9", {"recall": 0.4})

    monkeypatch.setitem(gate.GATE_CHECKS, "min_recall", GateCheck("recall is high enough", min_recall))
    both = GateSettings(checks=("min_gain", "min_recall"))
    decision = decide(metrics(0.9), metrics(0.1), both)
    assert not decision.promoted
    assert "recall 0.4 < 0.9" in decision.reason
    assert {name: result.passed for name, result in decision.results.items()} == {
        "min_gain": True,
        "min_recall": False,
    }
    assert decide(metrics(0.9), metrics(0.1), DEFAULT).promoted  # a check that is not set is not made


def test_without_checks_every_candidate_is_promoted() -> None:
    assert decide(metrics(0.1), metrics(0.9), GateSettings(checks=())).promoted


def test_default_setting_is_registered() -> None:
    assert gate_checks(DEFAULT.checks).keys() <= gate.GATE_CHECKS.keys()


def test_unknown_check_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'max_latency'.* min_gain"):
        gate_checks(("min_gain", "max_latency"))
