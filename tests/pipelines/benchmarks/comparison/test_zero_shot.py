"""Zero-shot detection of a held-out class: training set, vocabularies and rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsmoe_core.errors import DataError
from dsmoe_core.schema import ClassText, Vocabulary
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset, Budget
from pipelines.benchmarks.comparison.run_store import RunStore
from pipelines.benchmarks.comparison.zero_shot import (
    CONTROLS,
    controlled_vocabulary,
    held_out_class,
    run_zero_shot,
    split,
)
from tests.pipelines.benchmarks.comparison.test_dsmoe_model import tiny_model


def labels(dataset: BenchmarkDataset) -> set[str]:
    return {a.label for part in (dataset.train, dataset.val) for p in part for a in p.annotations}


def test_split_removes_boxes_and_text_of_the_class_and_keeps_the_images(dataset: BenchmarkDataset) -> None:
    without, only = split(dataset, "rust")
    assert labels(without) == set(without.vocabulary.names) == {"brick", "plum"}
    assert [p.image for p in without.train] == [p.image for p in dataset.train]
    assert labels(only) == set(only.vocabulary.names) == {"rust"}
    assert [p.image for p in only.val] == [p.image for p in dataset.val]
    boxes = [sum(len(p.annotations) for p in part.val) for part in (without, only, dataset)]
    assert boxes[0] + boxes[1] == boxes[2]


def test_only_the_text_of_the_held_out_class_changes() -> None:
    vocabulary = Vocabulary(
        tuple(ClassText(n, f"{n} on the ground", None, (f"a {n}",)) for n in ("rust", "plum"))
    )
    right, name, random = (controlled_vocabulary(vocabulary, "rust", c, "beside", 1) for c in CONTROLS)
    assert right == vocabulary
    assert name.classes == (ClassText("rust", ""), vocabulary.classes[1])
    assert random.classes[1] == vocabulary.classes[1]
    text = random.classes[0]
    assert (len(text.description.split()), len(text.paraphrases[0].split())) == (4, 2)
    assert "rust" not in text.description
    alone = controlled_vocabulary(vocabulary, "rust", "random", "alone", 1)
    assert alone.classes == (text,)
    assert controlled_vocabulary(vocabulary, "rust", "random", "alone", 2) != alone


@pytest.mark.parametrize("name", ["rust", "iron oxide"])
def test_class_of_an_extra_set_is_not_held_out(dataset: BenchmarkDataset, name: str) -> None:
    """Under its own name, or under another name with the same description."""
    described = tuple(replace(c, description=f"{c.name} on grey") for c in dataset.vocabulary.classes)
    extra = replace(dataset, name="more", vocabulary=Vocabulary((ClassText(name, "rust on grey"),)))
    with_extra = replace(dataset, vocabulary=Vocabulary(described), extra_sets=(extra,))
    with pytest.raises(DataError, match=f"more .*'{name}'.* squares"):
        held_out_class(with_extra, "rust")
    assert held_out_class(with_extra, "plum") == "plum"


def test_one_training_per_seed_is_evaluated_with_all_texts(
    data: Path, store: RunStore, trainings: list[dict[str, Any]]
) -> None:
    reports: list[dict[str, Any]] = []

    def measure() -> list[dict[str, Any]]:
        run_zero_shot(
            tiny_model(),
            [data],
            "plum",
            Budget(epochs=1),
            [1],
            store,
            lambda measured, _: reports.append(measured),
        )
        rows: list[dict[str, Any]] = reports[-1]["held_out_class"]
        return rows

    rows = measure()
    (training,) = trainings
    assert training["vocabulary"].names == ("rust", "brick")
    assert {a.label for p in training["images"] for a in p.annotations} == {"rust", "brick"}
    assert [(r["data"], r["class"], r["asked"], r["seeds"]) for r in rows] == [
        ("squares", "plum", "beside", [1]),
        ("squares", "plum", "alone", [1]),
    ]
    for row in rows:
        assert all(len(row[control]) == 1 and row[control][0] >= 0 for control in CONTROLS)
        assert {test["against"] for test in row["tests"]} == {"name", "random"}
    assert measure() == rows
    assert len(trainings) == 1


def test_default_is_the_class_with_most_training_boxes(dataset: BenchmarkDataset) -> None:
    without_rust = [
        replace(p, annotations=tuple(a for a in p.annotations if a.label != "rust"))
        for p in dataset.train[1:]
    ]
    counts = {n: sum(a.label == n for p in without_rust for a in p.annotations) for n in ("brick", "plum")}
    name = held_out_class(replace(dataset, train=tuple(without_rust)), None)
    assert counts[name] == max(counts.values()) > 0


def test_unknown_or_only_class_is_refused(dataset: BenchmarkDataset) -> None:
    with pytest.raises(DataError, match=r"squares .*'scratch'.*brick, plum, rust"):
        held_out_class(dataset, "scratch")
    _, only = split(dataset, "rust")
    with pytest.raises(DataError, match="'rust'"):
        held_out_class(replace(only, train=only.val), None)
