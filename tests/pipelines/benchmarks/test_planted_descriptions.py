"""A wrong description that is planted in the class book raises the score of its class alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dsmoe_core.schema import Box, ClassText, Detection, ImageRecord, Prediction, Routing, Vocabulary
from dsmoe_core.uncertainty.score_kinds import DESCRIPTION
from pipelines.benchmarks.planted_descriptions import (
    mean_scores,
    measure_planted_descriptions,
    place,
    with_planted_description,
)

NAMES = ("open", "short", "spur")
RIGHT = Vocabulary(tuple(ClassText(name, f"text of {name}", None, (f"other {name}",)) for name in NAMES))
IMAGES = [ImageRecord(f"{i:064x}", f"{i}.png", Path(f"{i}.png"), 100, 80) for i in range(4)]


def predict(vocabulary: Vocabulary) -> Iterator[Prediction]:
    """One detection of each class per image; the score is high where description and paraphrase disagree."""
    for image in IMAGES:
        detections = tuple(
            Detection(
                Box(10, 10, 30, 30),
                c.name,
                0.8,
                {c.name: 0.8},
                0.2,
                uncertainty={DESCRIPTION: 0.9 if c.description != f"text of {c.name}" else 0.1},
            )
            for c in vocabulary.classes
            if c.name != "spur"  # a class that is never detected
        )
        yield Prediction(image.key, detections, Routing((0,), (1.0,), 0.0), 0.4, "v1")


def test_a_class_gets_the_description_of_the_next_one_and_keeps_its_paraphrases() -> None:
    planted = with_planted_description(RIGHT, "spur")
    assert [c.description for c in planted.classes] == ["text of open", "text of short", "text of open"]
    assert [c.paraphrases for c in planted.classes] == [c.paraphrases for c in RIGHT.classes]
    assert planted.names == NAMES


def test_the_planted_class_is_singled_out() -> None:
    measured = measure_planted_descriptions(predict, RIGHT, resamples=50, seed=0)
    rows = measured["planted_descriptions"]
    by_class = {row["class"]: row for row in rows}
    assert tuple(by_class) == NAMES
    for name in ("open", "short"):
        row = by_class[name]
        assert row["detections"] == 4
        assert row["auroc"] == pytest.approx(1.0)
        assert row["ci95"] == pytest.approx([1.0, 1.0])
        assert row["auroc_with_right_description"] == pytest.approx(0.5)
        assert row["place"] == 1
    assert by_class["spur"]["auroc"] is None
    assert by_class["spur"]["place"] is None


def test_places_by_the_mean_score() -> None:
    planted = list(predict(with_planted_description(RIGHT, "open")))
    means = mean_scores(planted)
    assert means == pytest.approx({"open": 0.9, "short": 0.1})
    assert (place(means, "open"), place(means, "short"), place(means, "spur")) == (1, 2, None)


def test_without_paraphrases_nothing_is_measured() -> None:
    plain = Vocabulary(tuple(ClassText(name, name) for name in NAMES))
    assert measure_planted_descriptions(predict, plain, resamples=50, seed=0) == {}
