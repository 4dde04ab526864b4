"""Tests of the length of a training: schedules, time limit, early stopping, and resuming."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import QUICK, Killed, train

from dsmoe_core.checkpoint import CARD, read_card
from dsmoe_core.config import TrainingConfig
from dsmoe_core.errors import SettingsError
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.training.distributed import ProcessGroup
from dsmoe_core.training.early_stopping import MIN_WITH_BOXES, hold_out, known_images
from dsmoe_core.training.length import LengthState, TrainingLength
from dsmoe_core.training.schedule import cosine_factor, wsd_factor
from tests.dsmoe_core.test_train import assert_same_weights


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(
    training: TrainingConfig,
    seconds_per_step: Callable[[int], float] = lambda _: 1.0,
    evaluate: Callable[[], float] | None = None,
) -> tuple[LengthState, list[float], float]:
    """Run a training of steps of given durations; returns its state, learning rates and seconds."""
    clock, step, rates = Clock(), 0, []
    length = TrainingLength(training, LengthState(), ProcessGroup(), evaluate, clock=clock)
    while not length.is_done(step):
        rates.append(length.learning_rate(step) / training.learning_rate)
        clock.now += seconds_per_step(step)
        step += 1
        length.update(step)
        assert step < 100_000
    return length.state, rates, clock.now


def test_cosine_rises_linearly_then_falls() -> None:
    factors = [cosine_factor(step / 100, 0.2) for step in range(100)]
    assert factors[0] < 0.01
    assert factors.index(max(factors)) == 20
    assert max(factors) == pytest.approx(1)
    assert all(a < b for a, b in pairwise(factors[:21]))
    assert all(a > b for a, b in pairwise(factors[20:]))
    assert factors[60] == pytest.approx(0.01 + 0.99 / 2)


@settings(max_examples=20)
@given(warmup=st.integers(0, 50), stable=st.integers(0, 500), decay=st.integers(1, 200))
def test_wsd_rises_stays_and_falls(warmup: int, stable: int, decay: int) -> None:
    begin = warmup + stable
    factors = [wsd_factor(step, warmup, begin, begin + decay) for step in range(begin + decay + 1)]
    assert all(0 < factor <= 1 for factor in factors)
    assert all(a < b for a, b in pairwise(factors[:warmup]))
    assert set(factors[warmup : begin + 1]) <= {1.0}
    assert all(a > b for a, b in pairwise(factors[begin:]))
    assert factors[-1] == pytest.approx(0.01)


def test_stable_rates_do_not_depend_on_the_length() -> None:
    short, long = (
        run(TrainingConfig(images_seen=images, batch=4, schedule="wsd"))[1] for images in (4000, 8000)
    )
    assert len(short) == 1000
    assert short[:800] == long[:800]
    assert short[800:] != long[800:1000]
    assert set(long[50:1600]) == {1.0}


def test_a_known_length_is_kept_by_both_schedules() -> None:
    for schedule in ("auto", "cosine", "wsd"):
        state, rates, _ = run(TrainingConfig(images_seen=402, batch=4, schedule=schedule))
        assert len(rates) == 101 == state.end
        assert state.stopped == "length"
        assert (state.decay_from is None) == (schedule != "wsd")


@settings(max_examples=20)
@given(speed=st.floats(0.1, 2), minutes=st.floats(0.5, 10), share=st.floats(0.05, 0.5))
def test_a_training_with_a_time_limit_decays_completely_within_it(
    speed: float, minutes: float, share: float
) -> None:
    training = TrainingConfig(minutes=minutes, decay=share, schedule="wsd")
    state, rates, seconds = run(training, lambda _: 1 / speed)
    assert state.stopped == "time"
    assert seconds <= 60 * minutes + 2 / speed
    if speed * 60 * minutes > 200:
        assert seconds > 60 * minutes - 3 / speed
        assert state.decay_from is not None
        assert (len(rates) - state.decay_from) / len(rates) == pytest.approx(share, abs=0.05)
        assert rates[-1] < 0.1


def test_a_machine_that_becomes_slow_in_the_decay_still_ends_in_time() -> None:
    training = TrainingConfig(minutes=10, schedule="wsd")
    state, _, seconds = run(training, lambda step: 1.0 if step < 500 else 4.0)
    assert seconds == pytest.approx(600, abs=4)
    assert state.end is not None
    assert state.end < 540


def test_training_ends_when_the_evaluations_stand_still() -> None:
    values = iter([0.1, 0.3, 0.2, 0.3, 0.29])
    training = TrainingConfig(images_seen=40_000, batch=4, patience=3, evaluate_every=400, decay=0.2)
    state, rates, _ = run(training, evaluate=lambda: next(values))
    assert [step for step, _ in state.evaluations] == [100, 200, 300, 400, 500]
    assert (state.decay_from, state.end, state.stopped) == (500, 625, "no improvement")
    assert rates[499] == 1.0
    assert rates[-1] < 0.1


def test_training_ends_at_its_length_while_the_evaluations_improve() -> None:
    values = iter(range(1000))
    training = TrainingConfig(images_seen=4000, batch=4, patience=1, evaluate_every=400)
    state, rates, _ = run(training, evaluate=lambda: float(next(values)))
    assert (len(rates), state.decay_from, state.stopped) == (1000, 800, "length")
    assert len(state.evaluations) == 7


def test_time_spent_before_a_kill_counts() -> None:
    training, clock = TrainingConfig(minutes=1), Clock()
    length = TrainingLength(training, LengthState(), ProcessGroup(), seconds_before=59.5, clock=clock)
    clock.now += 1
    length.update(100)
    assert length.is_done(100)


def test_forecast_of_the_time_left() -> None:
    clock = Clock()
    length = TrainingLength(TrainingConfig(minutes=10), LengthState(), ProcessGroup(), clock=clock)
    for step in range(1, 61):
        clock.now += 2
        length.update(step)
    steps, left = length.forecast(60)
    assert (steps, left) == (300, {"seconds_left": 480})
    known = TrainingLength(TrainingConfig(images_seen=400), LengthState(), ProcessGroup(), clock=clock)
    assert known.forecast(0) == (100, {})


def test_cosine_needs_a_known_length() -> None:
    training = TrainingConfig(schedule="cosine", patience=2)
    with pytest.raises(SettingsError, match="cosine"):
        TrainingLength(training, LengthState(), ProcessGroup())


def test_with_a_time_limit_the_cosine_follows_the_time() -> None:
    """The second half of the time has a quarter of the steps, as they take three times as long."""
    training = TrainingConfig(minutes=10, warmup=0.1)
    state, rates, seconds = run(training, lambda step: 1.0 if step < 300 else 3.0)
    assert seconds == pytest.approx(600, abs=3)
    assert (state.end, state.stopped, state.decay_from) == (len(rates), "time", None)
    assert len(rates) == 400
    assert rates.index(max(rates)) == 60
    assert rates[300] == pytest.approx(cosine_factor(0.5, 0.1))
    assert rates[-1] < 0.02


def test_a_resumed_training_continues_the_cosine_of_its_time() -> None:
    clock = Clock()
    length = TrainingLength(
        TrainingConfig(minutes=10), LengthState(), ProcessGroup(), seconds_before=300, clock=clock
    )
    assert length.learning_rate(1) == pytest.approx(2e-3 * cosine_factor(0.5, 0.1))


def test_the_state_survives_a_checkpoint() -> None:
    state = LengthState(3, 7, "time", [(2, 0.5)])
    assert LengthState.from_dict(state.to_dict()) == state


def test_held_out_images_depend_on_their_content_alone(many: list[LabelledImage]) -> None:
    training = TrainingConfig(patience=2, inner_split=0.25)
    rest, held_out = hold_out(many, training)
    assert len(rest) + len(held_out) == len(many)
    assert {i.image.key for i in rest}.isdisjoint(i.image.key for i in held_out)
    assert len(held_out) / len(many) == pytest.approx(0.25, abs=0.15)
    more_rest, more_held_out = hold_out([*many[30:], *many[:30]], training)
    assert {i.image.key for i in more_held_out} == {i.image.key for i in held_out}
    assert len(more_rest) == len(rest)


def test_too_few_images_are_all_trained_on(images: list[LabelledImage]) -> None:
    assert sum(bool(i.annotations) for i in images) < 2 * MIN_WITH_BOXES
    assert hold_out(images, TrainingConfig(patience=1)) == (images, ())
    assert hold_out(images, TrainingConfig()) == (images, ())


@pytest.fixture
def many(images: list[LabelledImage]) -> list[LabelledImage]:
    """The images of the fixture, ten times under other keys."""
    return [
        LabelledImage(replace(image.image, key=f"{i}-{image.image.key}"), image.annotations)
        for i in range(10)
        for image in images
    ]


@pytest.mark.slow
def test_a_training_with_early_stopping_resumes_to_the_same_weights(
    tmp_path: Path, many: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    training = QUICK.model_copy(
        update={"images_seen": 16, "patience": 1, "evaluate_every": 4, "inner_split": 0.25, "ema": 0.0}
    )
    whole = train(tmp_path / "whole", many, vocabulary, training=training)
    assert whole.length["evaluations"]
    assert 5 <= len(whole.held_out) <= 64
    with pytest.raises(Killed):
        train(tmp_path / "cut", many, vocabulary, training=training, kill_at=3)
    cut = train(tmp_path / "cut", many, vocabulary, training=training)
    assert (cut.length, cut.held_out, cut.steps) == (whole.length, whole.held_out, whole.steps)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def keys(images: Iterable[LabelledImage]) -> set[str]:
    return {image.image.key for image in images}


@pytest.mark.parametrize("patience", [1, None], ids=["too few images", "no early stopping"])
def test_images_that_the_start_model_was_trained_on_are_not_held_out(
    patience: int | None, tmp_path: Path, many: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    """The first round trains on all its images, three of which later rounds would hold out."""
    stopping = QUICK.model_copy(
        update={"images_seen": 4, "patience": 1, "evaluate_every": 2, "inner_split": 0.5}
    )
    rest, chosen = hold_out(many, stopping)
    first_round = [*chosen[:3], *rest[:3]]
    settings = stopping.model_copy(update={"patience": patience})
    first = train(tmp_path / "first", first_round, vocabulary, training=settings)
    assert first.held_out == ()
    second = train(tmp_path / "second", many, vocabulary, training=stopping, start_from=tmp_path / "first")
    assert set(second.held_out) == keys(chosen[3:])
    card = read_card(tmp_path / "second")
    assert set(card.trained_on or ()) == keys(many) - keys(chosen[3:])
    third = train(tmp_path / "third", many, vocabulary, training=stopping, start_from=tmp_path / "second")
    assert set(third.held_out) == set(second.held_out)


def test_a_model_without_a_list_of_its_images_counts_as_trained_on_all_it_did_not_hold_out(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    train(tmp_path, images[:4], vocabulary, training=QUICK.model_copy(update={"images_seen": 2}))
    assert known_images(tmp_path, images) == keys(images[:4])
    assert known_images(None, images) == frozenset()
    card = json.loads((tmp_path / CARD).read_text())
    del card["trained_on"]
    card["held_out"] = [images[5].image.key]
    (tmp_path / CARD).write_text(json.dumps(card))
    assert known_images(tmp_path, images) == keys(images[:5])


def test_a_training_with_a_time_limit_ends_and_is_not_repeated(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    training = QUICK.model_copy(update={"minutes": 0.02})
    summary = train(tmp_path, images, vocabulary, training=training)
    assert summary.steps == summary.length["end"] >= 1
    assert summary.length["stopped"] == "time"
    assert train(tmp_path, images, vocabulary, training=training) == summary
