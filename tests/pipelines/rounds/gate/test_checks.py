"""Each check of the promotion gate on predictions of models whose quality is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from dsmoe_core.evaluation.paired_predictions import PairedPredictions, min_units
from dsmoe_core.schema import Box, LabelledImage, Prediction
from pipelines.label_errors.new_labels import NO_REFERENCE, CheckedLabels
from pipelines.rounds.gate import GATE_CHECKS, CheckResult, Comparison, Latency, Outcome, decide
from pipelines.settings.gate import GateSettings
from pipelines.workspace.registry import Metrics
from prompts.evaluation_report import TextEvaluationReport, Verdict
from tests.pipelines.synthetic_predictions import CLASSES, make_predictions, make_truth

METRICS = Metrics(map50=0.5, map=0.5, precision=1, recall=1, f1=1, per_class={}, evaluated_on="t+b")
Predictions = Mapping[str, Prediction]


def comparison(
    truth: list[LabelledImage], candidate: Predictions, champion: Predictions, **settings: Any
) -> Comparison:
    gate = GateSettings(resamples=200, **settings)
    groups = [gate.group(labelled.image.name) for labelled in truth]
    paired = PairedPredictions(
        candidate,
        champion,
        truth,
        CLASSES,
        groups=groups if gate.group_pattern else None,
        confidence=gate.confidence,
        resamples=gate.resamples,
    )
    return Comparison(
        METRICS, METRICS, gate, paired, check_new_labels=lambda: CheckedLabels([], NO_REFERENCE)
    )


def run(name: str, compared: Comparison) -> CheckResult:
    return GATE_CHECKS[name].check(compared)


def with_lost_class(predictions: Predictions, name: str) -> dict[str, Prediction]:
    return {
        key: replace(p, detections=tuple(d for d in p.detections if d.label != name))
        for key, p in predictions.items()
    }


def corrupted(predictions: Predictions, every: int = 5) -> dict[str, Prediction]:
    """Every fifth box is moved off its object."""
    count, result = 0, {}
    for key, p in predictions.items():
        detections = []
        for d in p.detections:
            count += 1
            x1, y1, x2, y2 = d.box.corners
            moved = Box(x1 + 80, y1, x2 + 80, y2)
            detections.append(replace(d, box=moved) if count % every == 0 else d)
        result[key] = replace(p, detections=tuple(detections))
    return result


def test_large_gain_passes_on_forty_images() -> None:
    truth = make_truth(40)
    better, worse = make_predictions(truth, 1, recall=0.9), make_predictions(truth, 2, recall=0.6)
    for first, second, outcome in ((better, worse, Outcome.PASS), (worse, better, Outcome.FAIL)):
        result = run("better", comparison(truth, first, second))
        assert result.outcome is outcome
        assert result.values["gain"] == pytest.approx(result.values["candidate"] - result.values["champion"])
        assert result.values["low"] < result.values["gain"] < result.values["high"]
    assert decide(comparison(truth, better, worse)).verdict == "promoted"


def test_min_gain_is_below_the_whole_interval() -> None:
    truth = make_truth(40)
    better, worse = make_predictions(truth, 1, recall=0.9), make_predictions(truth, 2, recall=0.6)
    low, gain = (run("better", comparison(truth, better, worse)).values[name] for name in ("low", "gain"))
    for min_gain, outcome in (
        (low - 0.01, Outcome.PASS),
        (low + 0.01, Outcome.NOT_ENOUGH_EVIDENCE),
        (gain + 0.01, Outcome.FAIL),
    ):
        assert run("better", comparison(truth, better, worse, min_gain=min_gain)).outcome is outcome


def test_same_predictions_are_not_better() -> None:
    truth = make_truth(20)
    same = make_predictions(truth, 1)
    result = run("better", comparison(truth, same, same))
    assert result.outcome is Outcome.FAIL
    assert (result.values["low"], result.values["high"]) == (0.0, 0.0)


@pytest.mark.parametrize(("confidence", "units"), [(0.5, 2), (0.9, 5), (0.95, 6), (0.99, 8)])
def test_too_few_images_are_not_enough_evidence_however_large_the_gain(confidence: float, units: int) -> None:
    assert min_units(confidence) == units
    for images, few in ((units - 1, True), (units, False)):
        truth = make_truth(images)
        perfect = make_predictions(truth, 1, recall=1.0, false_positives=0, jitter=0.001)
        nothing = make_predictions(truth, 2, recall=0.0)
        result = run("better", comparison(truth, perfect, nothing, confidence=confidence))
        assert (result.outcome is Outcome.NOT_ENOUGH_EVIDENCE) == few
        assert result.values["images"] == images


def test_groups_are_resampled_as_a_whole() -> None:
    """All of a gain on two of ten boards: certain image by image, not board by board."""
    truth = make_truth(40)
    base = make_predictions(truth, 1, recall=0.7)
    perfect = make_predictions(truth, 2, recall=1.0, false_positives=0, jitter=0.01)
    candidate = base | {key: perfect[key] for key in list(perfect)[:8]}
    by_image = run("better", comparison(truth, candidate, base))
    by_board = run("better", comparison(truth, candidate, base, group_pattern="^[^/]+"))
    assert (by_image.outcome, by_board.outcome) == (Outcome.PASS, Outcome.NOT_ENOUGH_EVIDENCE)
    assert (by_image.values["images"], by_board.values["groups"]) == (40, 10)


def test_group_of_a_name() -> None:
    pattern = GateSettings(group_pattern=r"line(\d)")
    assert [pattern.group(name) for name in ("a/line1.png", "b/line1x.png", "line2", "x")] == [
        "1",
        "1",
        "2",
        "",
    ]
    assert GateSettings(group_pattern="^...").group("abcd") == "abc"
    with pytest.raises(ValueError, match="regular expression"):
        GateSettings(group_pattern="(")


def test_lost_class_fails_although_the_mean_is_better() -> None:
    truth = make_truth(60)
    champion = make_predictions(truth, 2, recall=0.4, false_positives=2.0)
    candidate = make_predictions(truth, 1, recall=0.95, false_positives=0.2)
    assert decide(comparison(truth, candidate, champion)).promoted
    decision = decide(comparison(truth, with_lost_class(candidate, "spur"), champion))
    assert decision.results["better"].outcome is Outcome.PASS
    result = decision.results["class_margin"]
    outcomes = {name: row["outcome"] for name, row in result.values["classes"].items()}
    assert outcomes == {"open": "pass", "short": "pass", "spur": "fail", "pin_hole": "pass"}
    assert (decision.verdict, result.values["classes"]["spur"]["candidate"]) == ("refused", 0.0)


def test_rare_class_fails_only_if_it_is_lost() -> None:
    """Four boxes are too few for an estimate."""
    truth, rare = make_truth(40, classes=CLASSES[:3]), make_truth(4, 1, boxes=1, classes=("pin_hole",))
    images = [replace(p.image, key=f"rare{p.image.key}") for p in rare]
    truth += [replace(p, image=image) for p, image in zip(rare, images, strict=True)]
    recall = dict.fromkeys(CLASSES, 0.6)
    champion = make_predictions(truth, 2, recall=recall | {"pin_hole": 1.0}, jitter=0.01, false_positives=0)
    worse = make_predictions(truth, 2, recall=recall | {"pin_hole": 1.0}, jitter=0.1, false_positives=0)
    assert run("class_margin", comparison(truth, worse, champion)).values["classes"]["pin_hole"] == (
        run("class_margin", comparison(truth, worse, champion)).values["classes"]["pin_hole"]
        | {"boxes": 4, "outcome": "pass"}
    )
    lost = with_lost_class(worse, "pin_hole")
    assert (
        run("class_margin", comparison(truth, lost, champion)).values["classes"]["pin_hole"]["outcome"]
        == "fail"
    )


def test_margin_of_a_class_overrides_the_general_one() -> None:
    truth = make_truth(60)
    recall = dict.fromkeys(CLASSES, 0.9)
    champion = make_predictions(truth, 1, recall=recall, false_positives=0)
    candidate = make_predictions(truth, 1, recall=recall | {"short": 0.3}, false_positives=0)
    assert run("class_margin", comparison(truth, candidate, champion)).outcome is Outcome.FAIL
    tolerant = comparison(truth, candidate, champion, class_margin=0.5, class_margins={"open": 0.01})
    assert run("class_margin", tolerant).outcome is not Outcome.FAIL
    strict = comparison(truth, candidate, champion, class_margin=0.9, class_margins={"short": 0.05})
    assert run("class_margin", strict).values["classes"]["short"]["outcome"] == "fail"


def test_uncertain_loss_of_a_class_is_not_enough_evidence() -> None:
    truth = make_truth(40)
    champion, candidate = make_predictions(truth, 1), make_predictions(truth, 2)
    values = run("class_margin", comparison(truth, candidate, champion)).values["classes"]
    worst = min(values, key=lambda name: values[name]["difference"])
    row = values[worst]
    assert row["difference"] < 0 < row["high"]
    tight = {worst: -row["difference"] / 2}
    result = run(
        "class_margin", comparison(truth, candidate, champion, class_margin=1.0, class_margins=tight)
    )
    assert result.outcome is Outcome.NOT_ENOUGH_EVIDENCE
    assert result.values["classes"][worst]["outcome"] == "not enough evidence"


@pytest.mark.parametrize(("added", "outcome"), [(0.0, Outcome.PASS), (0.4, Outcome.FAIL)])
def test_overconfident_candidate_fails_calibration(added: float, outcome: Outcome) -> None:
    truth = make_truth(60)
    candidate = make_predictions(truth, 1, recall=0.7, false_positives=0.8, confidence=added)
    result = run("calibration", comparison(truth, candidate, candidate, max_calibration_error=0.2))
    assert result.outcome is outcome
    assert (result.values["error"] > 0.2) == (outcome is Outcome.FAIL)


@pytest.mark.parametrize(("factor", "outcome"), [(1.4, Outcome.FAIL), (1.6, Outcome.PASS)])
def test_latency_is_compared_with_the_champions(factor: float, outcome: Outcome) -> None:
    settings = GateSettings(max_latency_factor=factor)
    compared = Comparison(METRICS, METRICS, settings, measure_latency=lambda: Latency(15.0, 10.0))
    result = run("latency", compared)
    assert result.outcome is outcome
    assert result.values == {"candidate": 15.0, "champion": 10.0, "factor": factor}


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        ("better", Outcome.PASS),
        ("no worse", Outcome.PASS),
        ("worse", Outcome.FAIL),
        ("undecided", Outcome.NOT_ENOUGH_EVIDENCE),
    ],
)
def test_evaluation_of_the_class_book_counts(verdict: Verdict, outcome: Outcome) -> None:
    report = TextEvaluationReport(
        book="b", against="a", model="m", data="d", verdict=verdict, reason="r", made="2026-11-29"
    )
    compared = Comparison(METRICS, METRICS, GateSettings(), class_book_report=report)
    assert run("descriptions", compared).outcome is outcome
    assert run("descriptions", Comparison(METRICS, METRICS, GateSettings())).outcome is Outcome.PASS


def test_evidence_needs_boxes_of_every_class() -> None:
    truth = make_truth(12, classes=CLASSES[:3])
    same = make_predictions(truth, 1)
    result = run("evidence", comparison(truth, same, same, min_boxes=2))
    assert result.outcome is Outcome.NOT_ENOUGH_EVIDENCE
    assert result.values["boxes"]["pin_hole"] == 0
    truth = make_truth(12)
    result = run("evidence", comparison(truth, make_predictions(truth, 1), {}, min_boxes=2))
    assert result.outcome is Outcome.PASS
    assert min(result.values["boxes"].values()) >= 2


def test_candidate_with_a_fifth_of_its_boxes_moved_is_refused() -> None:
    truth = make_truth(40)
    champion = make_predictions(truth, 1, recall=0.9)
    decision = decide(comparison(truth, corrupted(champion), champion))
    assert decision.verdict == "refused"
    assert decision.results["better"].values["high"] < 0


@pytest.mark.slow
def test_candidates_that_are_better_by_chance_are_not_promoted() -> None:
    """Twenty candidates of the champion's quality, each trained with luck of its own, on thirty images."""
    promoted = 0
    for trial in range(20):
        truth = make_truth(30, trial)
        luck = [0.02 * ((7 * trial + 3 * k) % 5 - 2) for k in (0, 1)]  # recall differs by up to 0.08
        pair = [make_predictions(truth, 2 * trial + k, recall=0.75 + luck[k]) for k in (0, 1)]
        promoted += decide(comparison(truth, *pair)).promoted
    assert promoted <= 2


@pytest.mark.slow
def test_large_gains_of_the_first_rounds_are_promoted_on_forty_images() -> None:
    """A mean gain of 0.156, that of the first round in benchmarks/results/demo.json."""
    promoted = 0
    for trial in range(10):
        truth = make_truth(40, trial)
        candidate = make_predictions(truth, 2 * trial, recall=0.85)
        champion = make_predictions(truth, 2 * trial + 1, recall=0.475)
        promoted += decide(comparison(truth, candidate, champion)).promoted
    assert promoted >= 9
