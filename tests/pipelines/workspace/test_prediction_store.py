"""Predictions on disk are those in memory, also after a kill in the middle of a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.schema import Box, Detection, Prediction, Routing
from pipelines.workspace.prediction_store import PredictionStore, from_json, to_json


def prediction(key: str, *scores: float) -> Prediction:
    detections = tuple(
        Detection(
            Box(0.125, 1.0, 5.0, 9.5),
            "spur",
            s,
            {"spur": s, "short": 0.25},
            0.5,
            uncertainty={"class": s, "novelty": 2.5},
        )
        for s in scores
    )
    return Prediction(key, detections, Routing((3, 1), (0.75, 0.25), 1.5), 0.4, "m+b")


@given(st.lists(st.integers(0, 10**6), max_size=4))
def test_json_round_trip(millionths: list[int]) -> None:
    original = prediction("a", *(m / 10**6 for m in millionths))
    assert from_json(to_json(original)) == original


def test_append_adds_to_earlier_predictions(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path)
    assert store.load("m+b") == {}
    store.append("m+b", [prediction("a", 0.5)])
    counts: list[int] = []
    store.append("m+b", [prediction("b"), prediction("c", 0.1, 0.2)], counts.append)
    assert counts == [1, 2]
    assert store.load("m+b") == {
        "a": prediction("a", 0.5),
        "b": prediction("b"),
        "c": prediction("c", 0.1, 0.2),
    }


def test_lookup_reads_the_newest_complete_line_of_an_image(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path)
    assert dict(store.lookup("m+b")) == {}
    store.append("m+b", [prediction("a", 0.5), prediction("b"), prediction("a", 0.25)])
    with store.path("m+b").open("ab") as file:
        file.write(b'{"key": "torn"')
    lookup = store.lookup("m+b")
    assert (dict(lookup), len(lookup)) == (store.load("m+b"), 2)
    assert lookup["a"] == prediction("a", 0.25)


@pytest.mark.parametrize("missing_bytes", [1, 7, 60])
def test_incomplete_last_line_is_ignored_and_overwritten(tmp_path: Path, missing_bytes: int) -> None:
    store = PredictionStore(tmp_path)
    store.append("m+b", [prediction("a", 0.5), prediction("b", 0.25)])
    path = store.path("m+b")
    content = path.read_bytes()
    path.write_bytes(content[:-missing_bytes])
    assert set(store.load("m+b")) == {"a"}
    store.append("m+b", [prediction("b", 0.25)])
    assert path.read_bytes() == content


def test_interrupted_append_keeps_what_was_predicted(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Prediction]:
        yield prediction("a", 0.5)
        raise KeyboardInterrupt

    store = PredictionStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.append("m+b", interrupted())
    assert set(store.load("m+b")) == {"a"}
