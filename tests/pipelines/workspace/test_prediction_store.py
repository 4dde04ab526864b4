"""Detections on the disk: the same as in memory, even where a kill tore the last line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.schema import Box, Detection, Prediction, Routing
from pipelines.workspace.prediction_store import PredictionStore, from_json, to_json


def found(key: str, *scores: float) -> Prediction:
    detections = tuple(
        Detection(Box(0.125, 1.0, 5.0, 9.5), "spur", s, {"spur": s, "short": 0.25}, 0.5) for s in scores
    )
    return Prediction(key, detections, Routing((3, 1), (0.75, 0.25), 1.5), 0.4, "m+b")


@given(st.lists(st.integers(0, 10**6), max_size=4))
def test_json_keeps_everything(millionths: list[int]) -> None:
    one = found("a", *(m / 10**6 for m in millionths))
    assert from_json(to_json(one)) == one


def test_a_second_search_adds_to_the_first(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path)
    assert store.load("m+b") == {}
    assert list(store.add("m+b", [found("a", 0.5)])) == [found("a", 0.5)]
    list(store.add("m+b", [found("b"), found("c", 0.1, 0.2)]))
    assert store.load("m+b") == {
        "a": found("a", 0.5),
        "b": found("b"),
        "c": found("c", 0.1, 0.2),
    }


def test_a_look_up_reads_the_newest_line_of_a_image_and_no_torn_one(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path)
    assert dict(store.lookup("m+b")) == {}
    list(store.add("m+b", [found("a", 0.5), found("b"), found("a", 0.25)]))
    with store.path("m+b").open("ab") as file:
        file.write(b'{"key": "torn"')
    looked = store.lookup("m+b")
    assert (dict(looked), len(looked)) == (store.load("m+b"), 2)
    assert looked["a"] == found("a", 0.25)


@pytest.mark.parametrize("torn", [1, 7, 60])
def test_a_torn_line_is_dropped_and_written_over(tmp_path: Path, torn: int) -> None:
    store = PredictionStore(tmp_path)
    list(store.add("m+b", [found("a", 0.5), found("b", 0.25)]))
    path = store.path("m+b")
    whole = path.read_bytes()
    path.write_bytes(whole[:-torn])
    assert set(store.load("m+b")) == {"a"}
    list(store.add("m+b", [found("b", 0.25)]))
    assert path.read_bytes() == whole


def test_a_search_that_breaks_off_keeps_what_it_found(tmp_path: Path) -> None:
    def breaks_off():  # type: ignore[no-untyped-def]
        yield found("a", 0.5)
        raise KeyboardInterrupt

    store = PredictionStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        list(store.add("m+b", breaks_off()))
    assert set(store.load("m+b")) == {"a"}
