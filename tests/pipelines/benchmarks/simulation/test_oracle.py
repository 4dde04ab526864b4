"""The oracle annotator: its corrections of pre-annotations and its time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.schema import Annotation, Box, Detection, Outcome
from pipelines.benchmarks.simulation.oracle import annotation_minutes, outcomes
from pipelines.workspace.annotation_time import DEFAULT_SECONDS, IMAGE

LABELS = ("rust", "plum")


def box(x: float, size: float = 10.0) -> Box:
    return Box(x, 0.0, x + size, 10.0)


def detection(x: float, label: str, score: float = 0.9, size: float = 10.0) -> Detection:
    return Detection(box(x, size), label, score, {label: score}, 0.1)


def test_each_kind_of_correction_is_counted() -> None:
    truth = [
        Annotation(box(x), label) for x, label in ((0, "rust"), (50, "rust"), (100, "plum"), (150, "rust"))
    ]
    shown = [
        detection(0, "rust"),
        detection(50, "rust", size=6.0),  # IoU 0.6
        detection(100, "rust"),
        detection(200, "rust"),
    ]
    assert outcomes(shown, truth) == dict.fromkeys(Outcome, 1)


def test_the_right_class_takes_a_box_first() -> None:
    truth = [Annotation(box(0), "plum")]
    done = outcomes([detection(0, "rust", 0.9), detection(0, "plum", 0.8)], truth)
    assert (done[Outcome.ACCEPTED], done[Outcome.DELETED], done[Outcome.RELABELLED]) == (1, 1, 0)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from(LABELS)), max_size=6),
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from(LABELS)), max_size=6),
)
def test_every_box_and_every_pre_annotation_is_accounted_for(
    shown: list[tuple[int, str]], truth: list[tuple[int, str]]
) -> None:
    done = outcomes([detection(x, c) for x, c in shown], [Annotation(box(x), c) for x, c in truth])
    kept = done[Outcome.ACCEPTED] + done[Outcome.MOVED] + done[Outcome.RELABELLED]
    assert kept + done[Outcome.DELETED] == len(shown)
    assert kept + done[Outcome.ADDED] == len(truth)
    assert min(done.values()) >= 0


def test_minutes_of_an_image() -> None:
    seconds = DEFAULT_SECONDS[IMAGE] + 2 * DEFAULT_SECONDS[Outcome.ADDED] + DEFAULT_SECONDS[Outcome.DELETED]
    work = {Outcome.ADDED: 2, Outcome.DELETED: 1}
    assert annotation_minutes(work, DEFAULT_SECONDS) == pytest.approx(seconds / 60)
