"""The stop signal on simulated learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pipelines.benchmarks.simulation.stopping import stopping_row


def curve(values: Sequence[float], step: int = 100) -> list[dict[str, Any]]:
    return [{"boxes": step * (i + 1), "map": value} for i, value in enumerate(values)]


def test_a_flat_curve_stops_and_says_what_it_saves() -> None:
    flat = curve([0.5, *[0.6] * 11], step=2000)
    row = stopping_row("random", [flat])
    (saved,), (lost,) = row["boxes_saved"], row["map_lost"]
    assert 0 < saved < 22000
    assert lost == pytest.approx(0.0)
    assert row["forecasts"] == 10


def test_a_rising_curve_does_not_stop() -> None:
    row = stopping_row("random", [curve([0.1, 0.2, 0.3, 0.4]), curve([0.1, 0.25, 0.3, 0.35])])
    assert row["boxes_saved"] == [None, None]
    assert row["map_lost"] == [None, None]
    assert row["forecasts"] == 4
    assert 0 <= row["covered"] <= 4


def test_a_power_law_is_forecast() -> None:
    values = [0.3 + 0.3 * (1 - (i + 1) ** -0.6) for i in range(8)]
    row = stopping_row("random", [curve(values)])
    assert row["covered"] == row["forecasts"] == 6
