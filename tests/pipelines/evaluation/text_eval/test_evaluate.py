"""Evaluation of class books with a detector whose use of the text is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import labelled

from dsmoe_core.errors import ClassBookError, DataError
from dsmoe_core.schema import Box, LabelledImage
from pipelines.evaluation.report.evaluated_model import EvaluatedModel
from pipelines.evaluation.report.page import metrics_json
from pipelines.evaluation.text_eval.eval_set import EvaluationSet
from pipelines.evaluation.text_eval.evaluate import TextEvaluationRequest, evaluate_class_book
from pipelines.evaluation.text_eval.runs import METRICS, PairedRuns, metric_differences
from prompts.class_book import ClassBook
from prompts.class_entry import ClassEntry
from prompts.evaluation_report import TextEvaluationReport
from tests.pipelines.evaluation.text_eval.conftest import SHAPES, RecordingProgress, TextDetector, book


def evaluated(
    model: EvaluatedModel, this: ClassBook, other: ClassBook, truth: list[LabelledImage]
) -> dict[str, Any]:
    request = TextEvaluationRequest(this, other, tolerance=0.01, resamples=200, seed=1)
    return evaluate_class_book(
        request, model, EvaluationSet("boards", truth), "dsmoe classes evaluate", RecordingProgress()
    )


def paired_runs(model: EvaluatedModel, truth: list[LabelledImage]) -> PairedRuns:
    return PairedRuns(
        model, truth, book().vocabulary().names, resamples=150, seed=3, progress=RecordingProgress()
    )


def test_same_book_twice_has_no_difference(
    model: EvaluatedModel, detector: TextDetector, truth: list[LabelledImage]
) -> None:
    result = evaluated(model, book(), book(), truth)
    assert result["verdict"] == "no worse"
    for metrics in (result["total"], *result["classes"]):
        assert {name: metrics[name]["delta"] for name in METRICS} == dict.fromkeys(METRICS, 0.0)
        assert all(metrics[name]["ci95"] == [0.0, 0.0] for name in METRICS)
    # The book, names only, swapped texts, and three draws of random words; equal texts run once.
    assert len(detector.vocabularies) == 6


def test_wrong_description_is_worse(model: EvaluatedModel, truth: list[LabelledImage]) -> None:
    wrong = evaluated(model, book(spur=SHAPES["hole"]), book(), truth)
    assert wrong["verdict"] == "worse"
    assert wrong["reason"].startswith("worse: mAP@.5:.95 -0.")
    rows = {row["name"]: row for row in wrong["classes"]}
    assert rows["spur"]["map"]["ci95"][1] < 0
    assert rows["spur"]["margin"]["ci95"][1] < 0
    assert rows["short"]["map"]["delta"] == 0
    swapped = evaluated(model, book(), book(spur=SHAPES["hole"]), truth)
    assert swapped["verdict"] == "better"
    for name in METRICS:
        assert swapped["total"][name]["delta"] == pytest.approx(-wrong["total"][name]["delta"])
        ends = wrong["total"][name]["ci95"]
        assert swapped["total"][name]["ci95"] == pytest.approx([-ends[1], -ends[0]])


def test_model_without_detections_is_undecided(
    model: EvaluatedModel, detector: TextDetector, truth: list[LabelledImage]
) -> None:
    detector.truth = ()
    result = evaluated(model, book(spur="a spike"), book(), truth)
    assert result["verdict"] == "undecided"
    assert "24 images" in result["reason"]
    assert all("confused_with" not in row for row in result["classes"])


def test_controls_are_worse_for_a_model_that_uses_the_text(
    model: EvaluatedModel, truth: list[LabelledImage]
) -> None:
    result = evaluated(model, book(), book(), truth)
    assert [row["control"] for row in result["controls"]] == ["name", "random", "swapped"]
    assert all(row["total"]["map"]["ci95"][0] > 0 for row in result["controls"])
    assert result["text_effect"]["answer"] == "yes"
    assert result["text_effect"]["sentence"] not in result["reason"]


def test_model_that_ignores_the_text_is_reported(model: EvaluatedModel, truth: list[LabelledImage]) -> None:
    detector = TextDetector(truth, ignores_text=True)
    by_name = EvaluatedModel("d1", Path("nowhere"), model.vocabulary, {}, detector)
    result = evaluated(by_name, book(spur="nonsense"), book(), truth)
    assert result["verdict"] == "no worse"
    assert result["text_effect"]["answer"] == "not shown"
    assert result["text_effect"]["sentence"] in result["reason"]


def test_interval_is_that_of_paired_differences(model: EvaluatedModel, truth: list[LabelledImage]) -> None:
    runs = paired_runs(model, truth)
    first, second = (runs.run(b.vocabulary(), "x") for b in (book(), book(hole="nothing")))
    paired = first.resampled[:, 2, 1] - second.resampled[:, 2, 1]
    assert metric_differences(first, second).classes[2]["map"]["ci95"] == pytest.approx(
        np.percentile(paired, [2.5, 97.5]), abs=1e-6
    )
    repeated = paired_runs(model, truth).run(book().vocabulary(), "x")
    assert np.array_equal(repeated.resampled, first.resampled, equal_nan=True)


def test_several_runs_are_averaged_with_their_spread(
    model: EvaluatedModel, truth: list[LabelledImage]
) -> None:
    runs = paired_runs(model, truth)
    books = book(), book(hole="nothing"), book(hole="nothing", spur="nothing")
    this, first, second = (runs.run(b.vocabulary(), "x") for b in books)
    both = metric_differences(this, first, second)
    singles = metric_differences(this, first), metric_differences(this, second)
    assert "spread" not in singles[0].total["map"]
    rows = [
        (both.total, *(single.total for single in singles)),
        *zip(both.classes, *(single.classes for single in singles), strict=True),
    ]
    for averaged, *separate in rows:
        for name in METRICS:
            deltas = [row[name]["delta"] for row in separate]
            assert averaged[name]["delta"] == pytest.approx(np.mean(deltas), abs=2e-6)
            assert averaged[name]["spread"] == pytest.approx([min(deltas), max(deltas)], abs=2e-6)
    low, high = both.total["map"]["spread"]
    assert low < both.total["map"]["delta"] < high
    means = [np.nanmean(run.resampled, axis=1)[:, 1] for run in (this, first, second)]
    paired = means[0] - (means[1] + means[2]) / 2
    assert both.total["map"]["ci95"] == pytest.approx(np.percentile(paired, [2.5, 97.5]), abs=1e-6)


def test_draws_of_random_words_differ_and_are_reproducible(
    model: EvaluatedModel, detector: TextDetector, truth: list[LabelledImage]
) -> None:
    def random_descriptions(draws: int, seed: int) -> list[str]:
        detector.vocabularies.clear()
        request = TextEvaluationRequest(book(), book(), tolerance=0.01, resamples=100, seed=seed, draws=draws)
        evaluate_class_book(request, model, EvaluationSet("boards", truth), "x", RecordingProgress())
        return [vocabulary.classes[0].description for vocabulary in detector.vocabularies[2:-1]]

    three = random_descriptions(3, seed=1)
    assert len(set(three)) == 3
    assert random_descriptions(3, seed=1) == three
    assert random_descriptions(1, seed=1) == three[:1]
    assert random_descriptions(1, seed=2) == three[1:2]


def test_result_has_routing_and_confused_classes(model: EvaluatedModel, truth: list[LabelledImage]) -> None:
    result = evaluated(model, book(), book(), truth)
    row = result["classes"][0]
    assert row["confused_with"] in SHAPES
    assert row["routing"]["this"] == row["routing"]["other"]
    assert sum(row["routing"]["images"]) > 0
    table = np.array(result["experts"]["this"])
    assert table.shape == (3, 4)
    assert table.sum(axis=1) == pytest.approx([1, 1, 1])
    assert result["distances"] == {}  # the detector has no text encoder


def other_classes() -> ClassBook:
    """A book without hole, with dent, and with burr, whose alias is spur."""
    return ClassBook(
        classes=(
            ClassEntry(name="dent", description="a hollow"),
            ClassEntry(name="short", description="a bridge between tracks in the copper"),
            ClassEntry(name="burr", description="a pointed outgrowth in the copper", aliases=("Spur",)),
        )
    )


def test_different_books_are_evaluated_on_their_common_classes(
    model: EvaluatedModel, detector: TextDetector, truth: list[LabelledImage]
) -> None:
    holes = sum(a.label == "hole" for image in truth for a in image.annotations)
    result = evaluated(model, book(), other_classes(), truth)
    assert [row["name"] for row in result["classes"]] == ["spur", "short"]
    assert result["left_out"] == {"this": ["hole"], "other": ["dent"], "boxes": holes, "images": []}
    assert result["total"]["map"]["delta"] == 0  # the descriptions of both classes are equal
    assert {v.names for v in detector.vocabularies} == {("spur", "short"), ("short", "burr")}
    swapped = evaluated(model, other_classes(), book(), truth)
    assert [row["name"] for row in swapped["classes"]] == ["short", "burr"]
    assert swapped["left_out"]["this"] == ["dent"]


def test_books_and_data_without_common_classes_are_refused(
    model: EvaluatedModel, truth: list[LabelledImage]
) -> None:
    rust = ClassBook(classes=(ClassEntry(name="rust", description="red"),))
    with pytest.raises(ClassBookError, match="spur, short, hole; rust"):
        evaluated(model, book(), rust, truth)
    unknown = [labelled("x", (Box(0, 0, 9, 9), "scratch"))]
    with pytest.raises(ClassBookError, match="'scratch'"):
        evaluated(model, book(), book(), unknown)
    holes = [labelled("x", (Box(0, 0, 9, 9), "hole"))]
    with pytest.raises(DataError, match="spur, short"):
        evaluated(model, book(), other_classes(), holes)


def test_result_is_a_report_for_publishing(
    model: EvaluatedModel, truth: list[LabelledImage], tmp_path: Path
) -> None:
    result = evaluated(model, book(), book(spur="a spike"), truth)
    (tmp_path / "evaluation.json").write_text(metrics_json(result))
    report = TextEvaluationReport.load(tmp_path / "evaluation.json")
    assert report.book == book().version
    assert report.against == book(spur="a spike").version
    assert (report.model, report.data) == ("r1", "boards, 24 images")
