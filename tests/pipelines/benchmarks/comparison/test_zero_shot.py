"""A class that was never trained on: what is taken away, what is asked, what is reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsmoe_core.errors import DataError
from dsmoe_core.schema import ClassText, Vocabulary
from pipelines.benchmarks.comparison import dsmoe_model, zero_shot
from pipelines.benchmarks.comparison.protocol import Budget, Lesson
from pipelines.benchmarks.comparison.run_store import Bouts
from tests.pipelines.benchmarks.comparison.test_dsmoe_model import tiny


def labels(lesson: Lesson) -> set[str]:
    return {a.label for part in (lesson.train, lesson.val) for p in part for a in p.annotations}


def test_a_class_is_taken_off_boxes_and_vocabulary_and_its_images_stay(lesson: Lesson) -> None:
    without, only = zero_shot.split(lesson, "rust")
    assert labels(without) == set(without.vocabulary.names) == {"brick", "plum"}
    assert [p.image for p in without.train] == [p.image for p in lesson.train]
    assert labels(only) == set(only.vocabulary.names) == {"rust"}
    assert [p.image for p in only.val] == [p.image for p in lesson.val]
    boxes = [sum(len(p.annotations) for p in one.val) for one in (without, only, lesson)]
    assert boxes[0] + boxes[1] == boxes[2]


def test_only_the_words_of_the_class_change() -> None:
    known = Vocabulary(tuple(ClassText(n, f"{n} on the ground", None, (f"a {n}",)) for n in ("rust", "plum")))
    right, name, drawn = (zero_shot.described(known, "rust", w, "beside", 1) for w in zero_shot.SAID)
    assert right == known
    assert name.classes == (ClassText("rust", ""), known.classes[1])
    assert drawn.classes[1] == known.classes[1]
    text = drawn.classes[0]
    assert (len(text.description.split()), len(text.paraphrases[0].split())) == (4, 2)
    assert "rust" not in text.description
    alone = zero_shot.described(known, "rust", "random", "alone", 1)
    assert alone.classes == (text,)
    assert zero_shot.described(known, "rust", "random", "alone", 2) != alone


@pytest.mark.parametrize("name", ["rust", "iron oxide"])
def test_a_class_that_another_set_teaches_is_not_held_out(lesson: Lesson, name: str) -> None:
    """Under its own name or another one for the same words."""
    described = tuple(replace(c, description=f"{c.name} on grey") for c in lesson.vocabulary.classes)
    other = replace(lesson, name="more", vocabulary=Vocabulary((ClassText(name, "rust on grey"),)))
    along = replace(lesson, vocabulary=Vocabulary(described), along=(other,))
    with pytest.raises(DataError, match=f"more teaches '{name}', which squares is to do without"):
        zero_shot._chosen(along, "rust")
    assert zero_shot._chosen(along, "plum") == "plum"


def test_one_training_a_seed_is_asked_in_all_words(
    small: Path, bouts: Bouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    fit = dsmoe_model.fit
    monkeypatch.setattr(dsmoe_model, "fit", lambda **settings: given.append(settings) or fit(**settings))
    reports: list[dict[str, Any]] = []

    def go(label: str | None) -> list[dict[str, Any]]:
        budget = Budget(epochs=1)
        zero_shot.run(tiny(), [small], label, budget, [1], bouts, lambda said, _: reports.append(said))
        rows: list[dict[str, Any]] = reports[-1]["held_out_class"]
        return rows

    rows = go("plum")
    (settings,) = given
    assert settings["vocabulary"].names == ("rust", "brick")
    assert {a.label for p in settings["pictures"] for a in p.annotations} == {"rust", "brick"}
    assert [(r["data"], r["class"], r["asked"], r["seeds"]) for r in rows] == [
        ("squares", "plum", "beside", [1]),
        ("squares", "plum", "alone", [1]),
    ]
    for row in rows:
        assert all(len(row[words]) == 1 and row[words][0] >= 0 for words in zero_shot.SAID)
        assert {test["against"] for test in row["tests"]} == {"name", "random"}
    assert go("plum") == rows
    assert len(given) == 1


def test_by_default_it_is_the_class_with_most_boxes_to_learn_from(lesson: Lesson) -> None:
    rare = [
        replace(p, annotations=tuple(a for a in p.annotations if a.label != "rust")) for p in lesson.train[1:]
    ]
    counts = {n: sum(a.label == n for p in rare for a in p.annotations) for n in ("brick", "plum")}
    chosen = zero_shot._chosen(replace(lesson, train=tuple(rare)), None)
    assert counts[chosen] == max(counts.values()) > 0


def test_a_class_that_cannot_be_held_out_is_refused(lesson: Lesson) -> None:
    with pytest.raises(
        DataError, match=r"squares lacks boxes of 'scratch' in a part; val\.json has brick, plum, rust"
    ):
        zero_shot._chosen(lesson, "scratch")
    _, only = zero_shot.split(lesson, "rust")
    with pytest.raises(DataError, match="no other class than 'rust'"):
        zero_shot._chosen(replace(only, train=only.val), None)
