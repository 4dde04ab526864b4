"""Two books and one model whose reading is known: what is planted is found, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import labelled

from dsmoe_core.errors import ClassBookError, DataError
from dsmoe_core.schema import Box, LabelledImage
from pipelines.evaluation.report.evaluated_model import EvaluatedModel
from pipelines.evaluation.text_eval.eval_set import EvaluationSet
from pipelines.evaluation.text_eval.evaluate import TextEvaluationRequest, evaluate_class_book
from pipelines.evaluation.text_eval.runs import FIGURES, PairedRuns, metric_differences
from prompts.class_book import ClassBook
from prompts.class_entry import ClassEntry
from prompts.evaluation_report import TextEvaluationReport
from tests.pipelines.evaluation.text_eval.conftest import SHAPES, RecordingProgress, WordReader, book


def evaluated(
    model: EvaluatedModel, this: ClassBook, other: ClassBook, truth: list[LabelledImage]
) -> dict[str, Any]:
    question = TextEvaluationRequest(this, other, tolerance=0.01, resamples=200, seed=1)
    return evaluate_class_book(
        question, model, EvaluationSet("boards", truth), "dsmoe classes evaluate", RecordingProgress()
    )


def test_a_book_against_itself_is_no_worse_by_exactly_nothing(
    model: EvaluatedModel, reader: WordReader, truth: list[LabelledImage], tmp_path: Path
) -> None:
    found = evaluated(model, book(), book(), truth)
    assert found["verdict"] == "no worse"
    for figures in (found["total"], *found["classes"]):
        assert {name: figures[name]["delta"] for name in FIGURES} == dict.fromkeys(FIGURES, 0.0)
        assert all(figures[name]["ci95"] == [0.0, 0.0] for name in FIGURES)
    assert (
        len(reader.asked) == 3 + 3
    )  # right, name, swapped, random words thrice: the same words are asked once


def test_a_wrong_text_is_found_out(model: EvaluatedModel, truth: list[LabelledImage]) -> None:
    wrong = evaluated(model, book(spur=SHAPES["hole"]), book(), truth)
    assert wrong["verdict"] == "worse"
    assert wrong["reason"].startswith("worse: mAP@.5:.95 -0.")
    rows = {row["name"]: row for row in wrong["classes"]}
    assert rows["spur"]["map"]["ci95"][1] < 0
    assert rows["spur"]["margin"]["ci95"][1] < 0
    assert rows["short"]["map"]["delta"] == 0
    back = evaluated(model, book(), book(spur=SHAPES["hole"]), truth)
    assert back["verdict"] == "better"
    for name in FIGURES:
        assert back["total"][name]["delta"] == pytest.approx(-wrong["total"][name]["delta"])
        ends = wrong["total"][name]["ci95"]
        assert back["total"][name]["ci95"] == pytest.approx([-ends[1], -ends[0]])


def test_a_model_that_finds_nothing_decides_nothing(
    model: EvaluatedModel, reader: WordReader, truth: list[LabelledImage]
) -> None:
    reader.truth = ()
    found = evaluated(model, book(spur="a spike"), book(), truth)
    assert found["verdict"] == "undecided"
    assert "finds nothing right on 24 images, in neither book" in found["reason"]
    assert all("rival" not in row for row in found["classes"])


def test_the_controls_say_whether_words_are_read(model: EvaluatedModel, truth: list[LabelledImage]) -> None:
    found = evaluated(model, book(), book(), truth)
    assert [one["words"] for one in found["controls"]] == ["name", "random", "swapped"]
    assert all(one["total"]["map"]["ci95"][0] > 0 for one in found["controls"])
    assert found["text_effect"]["answer"] == "yes"
    assert "random" not in found["reason"]
    deaf = EvaluatedModel("d1", Path("nowhere"), model.vocabulary, {}, WordReader(truth, deaf=True))
    found = evaluated(deaf, book(spur="nonsense"), book(), truth)
    assert found["verdict"] == "no worse"
    assert found["text_effect"]["answer"] == "not shown"
    assert "The model does not read these words" in found["reason"]


def test_comparisons_are_paired(model: EvaluatedModel, truth: list[LabelledImage]) -> None:
    """The interval of a difference is that of differences within resamples, the same ones for both."""
    vocabulary = book().vocabulary()
    bench = PairedRuns(model, truth, vocabulary.names, resamples=150, seed=3, progress=RecordingProgress())
    one, other = (bench.read(b.vocabulary(), "x") for b in (book(), book(hole="nothing")))
    within = one.resampled[:, 2, 1] - other.resampled[:, 2, 1]
    assert metric_differences(one, other).classes[2]["map"]["ci95"] == pytest.approx(
        np.percentile(within, [2.5, 97.5]), abs=1e-6
    )
    again = PairedRuns(
        model, truth, vocabulary.names, resamples=150, seed=3, progress=RecordingProgress()
    ).read(vocabulary, "x")
    assert np.array_equal(again.resampled, one.resampled, equal_nan=True)


def test_of_several_draws_the_mean_counts_and_the_spread_is_told(
    model: EvaluatedModel, truth: list[LabelledImage]
) -> None:
    bench = PairedRuns(
        model, truth, book().vocabulary().names, resamples=150, seed=3, progress=RecordingProgress()
    )
    right, some, none = (
        bench.read(b.vocabulary(), "x")
        for b in (book(), book(hole="nothing"), book(hole="nothing", spur="nothing"))
    )
    found, one, two = (
        metric_differences(right, some, none),
        metric_differences(right, some),
        metric_differences(right, none),
    )
    assert "spread" not in one.total["map"]
    pairs = [(found.total, one.total, two.total), *zip(found.classes, one.classes, two.classes, strict=True)]
    for mean, *each in pairs:
        for name in FIGURES:
            deltas = [single[name]["delta"] for single in each]
            assert mean[name]["delta"] == pytest.approx(np.mean(deltas), abs=2e-6)
            assert mean[name]["spread"] == pytest.approx([min(deltas), max(deltas)], abs=2e-6)
    assert found.total["map"]["spread"][0] < found.total["map"]["delta"] < found.total["map"]["spread"][1]
    means = [np.nanmean(reading.resampled, axis=1)[:, 1] for reading in (right, some, none)]
    within = means[0] - (means[1] + means[2]) / 2
    assert found.total["map"]["ci95"] == pytest.approx(np.percentile(within, [2.5, 97.5]), abs=1e-6)


def test_each_draw_of_random_words_is_another_and_all_come_again(
    model: EvaluatedModel, reader: WordReader, truth: list[LabelledImage]
) -> None:
    def asked(draws: int, seed: int) -> list[str]:
        reader.asked.clear()
        question = TextEvaluationRequest(
            book(), book(), tolerance=0.01, resamples=100, seed=seed, draws=draws
        )
        evaluate_class_book(question, model, EvaluationSet("boards", truth), "x", RecordingProgress())
        return [one.classes[0].description for one in reader.asked[2:-1]]

    three = asked(3, seed=1)
    assert len(set(three)) == 3
    assert asked(3, seed=1) == three
    assert asked(1, seed=1) == three[:1]
    assert asked(1, seed=2) == three[1:2]


def test_routing_and_rivals_are_told(model: EvaluatedModel, truth: list[LabelledImage]) -> None:
    found = evaluated(model, book(), book(), truth)
    row = found["classes"][0]
    assert row["rival"] in SHAPES
    assert row["routing"]["this"] == row["routing"]["other"]
    assert sum(row["routing"]["images"]) > 0
    table = np.array(found["experts"]["this"])
    assert table.shape == (3, 4)
    assert table.sum(axis=1) == pytest.approx([1, 1, 1])
    assert found["distances"] == {}  # this detector has no encoder


def other_classes() -> ClassBook:
    """Lacks hole, has dent, and calls spur by another name."""
    return ClassBook(
        classes=(
            ClassEntry(name="dent", description="a hollow"),
            ClassEntry(name="short", description="a bridge between tracks in the copper"),
            ClassEntry(name="burr", description="a pointed outgrowth in the copper", aliases=("Spur",)),
        )
    )


def test_books_of_different_classes_are_judged_on_the_common_ones(
    model: EvaluatedModel, reader: WordReader, truth: list[LabelledImage]
) -> None:
    holes = sum(a.label == "hole" for one in truth for a in one.annotations)
    found = evaluated(model, book(), other_classes(), truth)
    assert [row["name"] for row in found["classes"]] == ["spur", "short"]
    assert found["left_out"] == {"this": ["hole"], "other": ["dent"], "boxes": holes, "images": []}
    assert found["total"]["map"]["delta"] == 0  # both say the same of both classes, one under another name
    assert {v.names for v in reader.asked} == {("spur", "short"), ("short", "burr")}
    turned = evaluated(model, other_classes(), book(), truth)
    assert [row["name"] for row in turned["classes"]] == ["short", "burr"]
    assert turned["left_out"]["this"] == ["dent"]


def test_what_cannot_be_judged_is_refused(model: EvaluatedModel, truth: list[LabelledImage]) -> None:
    rust = ClassBook(classes=(ClassEntry(name="rust", description="red"),))
    with pytest.raises(ClassBookError, match="no class in common: spur, short, hole; rust"):
        evaluated(model, book(), rust, truth)
    strange = [labelled("x", (Box(0, 0, 9, 9), "scratch"))]
    with pytest.raises(ClassBookError, match="neither class book knows 'scratch'"):
        evaluated(model, book(), book(), strange)
    holes = [labelled("x", (Box(0, 0, 9, 9), "hole"))]
    with pytest.raises(DataError, match="no true box of spur, short, which both books have"):
        evaluated(model, book(), other_classes(), holes)


def test_the_report_is_one_that_publishing_reads(
    model: EvaluatedModel, truth: list[LabelledImage], tmp_path: Path
) -> None:
    from pipelines.evaluation.report.page import metrics_json

    found = evaluated(model, book(), book(spur="a spike"), truth)
    (tmp_path / "evaluation.json").write_text(metrics_json(found))
    report = TextEvaluationReport.load(tmp_path / "evaluation.json")
    assert report.book == book().version
    assert report.against == book(spur="a spike").version
    assert (report.model, report.data) == ("r1", "boards, 24 images")
    assert report.allows_publishing
