"""Drift of the champion's predictions over the images in their order of arrival."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.schema import Prediction, Routing
from pipelines.rounds.context import LoopContext
from pipelines.rounds.drift import Arrival, arrival_stream, change_point, detect_drift, pool_in_order, signals
from pipelines.rounds.loop import close_round, open_round
from pipelines.workspace.workspace import Workspace


def stream(before: float, after: float, *, old: int = 200, new: int = 200, seed: int = 0) -> list[Arrival]:
    """Old images with one mean of both signals, then new images with another one of the uncertainty."""
    rng = random.Random(seed)
    means = [before] * old + [after] * new
    return [
        Arrival(f"{i:04d}", i >= old, {"uncertainty": rng.gauss(mean, 0.05), "steady": rng.gauss(0.5, 0.05)})
        for i, mean in enumerate(means)
    ]


def test_change_of_one_signal_is_detected_with_its_means() -> None:
    (change,) = detect_drift(stream(0.2, 0.4), delta=0.002)
    assert change.signal == "uncertainty"
    assert change.before == pytest.approx(0.2, abs=0.02)
    assert change.after == pytest.approx(0.4, abs=0.02)
    assert "0195" <= change.image <= "0205"


@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.floats(0, 1))
def test_change_point_of_a_step(before: int, after: int, low: float, high: float) -> None:
    split = change_point([low] * before + [high] * after)
    assert 1 <= split < before + after
    if abs(low - high) > 1e-3:
        assert split == before


@pytest.mark.parametrize("seed", range(5))
def test_steady_stream_has_no_drift(seed: int) -> None:
    assert detect_drift(stream(0.3, 0.3, seed=seed), delta=0.002) == ()


def test_change_before_the_new_images_does_not_count() -> None:
    arrivals = stream(0.2, 0.4, old=200, new=200)
    later = [Arrival(a.name, index >= 390, a.values) for index, a in enumerate(arrivals)]
    assert detect_drift(later, delta=0.002) == ()


def test_empty_stream_has_no_drift() -> None:
    assert detect_drift([], delta=0.002) == ()


def test_expert_that_an_image_does_not_use_has_weight_zero() -> None:
    """All images use expert 0; the new ones use expert 5 as well."""
    rng = random.Random(1)
    arrivals = [
        Arrival(
            str(i), i >= 100, {"expert 0": rng.gauss(0.5, 0.02)} | ({"expert 5": 0.5} if i >= 100 else {})
        )
        for i in range(200)
    ]
    assert [change.signal for change in detect_drift(arrivals, delta=0.002)] == ["expert 5"]


def test_signals_of_a_prediction() -> None:
    prediction = Prediction("k", (), Routing((3, 1), (0.75, 0.25), 0.9), 0.4, "m+b")
    assert signals(prediction) == {
        "uncertainty": 0.4,
        "routing entropy": 0.9,
        "expert 3": 0.75,
        "expert 1": 0.25,
    }


def test_stream_of_a_workspace_leaves_out_trained_images_and_knows_the_new_ones(
    context: LoopContext, workspace: Workspace, label: object
) -> None:
    assert arrival_stream(workspace, pool_in_order(workspace, 100)) == []
    open_round(context)
    label(context)  # type: ignore[operator]
    close_round(context)
    champion = workspace.champion()
    assert champion is not None
    trained = {task.key for task in workspace.journal.tasks()}
    images = pool_in_order(workspace, 100)
    assert trained.isdisjoint(image.key for image in images)
    assert len(images) == 12 - len(trained)
    context.ensure_predictions(champion, images)
    arrivals = arrival_stream(workspace, images)
    assert [a.name for a in arrivals] == [image.name for image in images] == sorted(i.name for i in images)
    assert not any(arrival.is_new for arrival in arrivals)
    assert len(pool_in_order(workspace, 2)) == 2
    assert pool_in_order(workspace, 2) == images[-2:]
