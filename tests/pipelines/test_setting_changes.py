"""Changes of settings on the command line."""

from __future__ import annotations

import pytest
from tiny import HashEncoder

from dsmoe_core.errors import SettingsError
from pipelines.benchmarks.comparison.models import ModelBuilder
from pipelines.settings.changes import apply_changes

RAW = {"batch": 4, "losses": {"box": 1.0, "qfl": 2.0}}


def test_values_are_yaml_and_the_other_settings_stay() -> None:
    changed = apply_changes(RAW, "batch=8 losses.box=0.5 losses.names=[a,b]", example="batch=2")
    assert changed == {"batch": 8, "losses": {"box": 0.5, "qfl": 2.0, "names": ["a", "b"]}}
    assert RAW == {"batch": 4, "losses": {"box": 1.0, "qfl": 2.0}}


@pytest.mark.parametrize("change", ["batch", "batch=", "=8", "losses.box={"])
def test_malformed_change_is_refused(change: str) -> None:
    with pytest.raises(SettingsError) as refused:
        apply_changes(RAW, f"batch=8 {change}", example="batch=2")
    assert repr(change) in str(refused.value)


def test_fixed_setting_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"losses\.box=3"):
        apply_changes(RAW, "batch=8 losses.box=3", example="batch=2", fixed=["losses.box"])


@pytest.mark.parametrize("change", ["learning_rate", "learning_rate=fast", "batch.size=3", "unknown=1"])
def test_trainings_of_a_comparison_refuse_a_wrong_change(change: str) -> None:
    with pytest.raises(SettingsError):
        ModelBuilder(96, HashEncoder(), lambda _: pytest.fail("not needed")).with_training(change)
