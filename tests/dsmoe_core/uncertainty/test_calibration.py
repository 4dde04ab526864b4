"""Concrete errors of detections, and the calibration of scores to their probabilities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsmoe_core.errors import ModelError
from dsmoe_core.evaluation.matching import match_images
from dsmoe_core.schema import (
    Annotation,
    Box,
    Detection,
    ImageRecord,
    LabelledImage,
    Prediction,
    Routing,
)
from dsmoe_core.uncertainty.calibration import (
    FILE,
    UncertaintyCalibration,
    fit_calibration,
    novelty_samples,
)
from dsmoe_core.uncertainty.concrete_errors import detection_errors, missed_objects

NAMES = ("a", "b")


def box(left: float, width: float = 10) -> Box:
    return Box(left, 0, left + width, 10)


def detection(left: float, score: float, label: str = "a", width: float = 10, **scores: float) -> Detection:
    probabilities = {name: score if name == label else score / 4 for name in NAMES}
    return Detection(box(left, width), label, score, probabilities, 0.3, uncertainty=scores)


def image(key: str, *annotations: Annotation) -> LabelledImage:
    return LabelledImage(ImageRecord(key, key, Path(key), 400, 400), annotations)


def prediction(key: str, *detections: Detection) -> Prediction:
    return Prediction(key, tuple(detections), Routing((0,), (1.0,), 0.0), 0.5, "m+b")


def test_errors_of_detections() -> None:
    truth = [image("k", Annotation(box(0), "a"), Annotation(box(100), "b"), Annotation(box(200), "a"))]
    detections = (
        detection(0, 0.9),  # correct
        detection(100, 0.8),  # wrong class
        detection(200, 0.7, width=30),  # IoU 1/3
        detection(300, 0.6),  # nothing there
    )
    (matched,) = match_images({"k": prediction("k", *detections)}, truth)
    errors = detection_errors(matched)
    assert errors["class"].applies.tolist() == [True, True, False, False]
    assert errors["class"].error.tolist() == [False, True, False, False]
    assert errors["localisation"].applies.tolist() == [True, False, True, False]
    assert errors["localisation"].error.tolist() == [False, False, True, False]
    assert errors["routing"].error.tolist() == [False, True, True, True]
    assert missed_objects(matched, 0.5) == 2
    assert missed_objects(matched, 0.95) == 3


def labelled_set(images: int, seed: int = 0) -> tuple[dict[str, Prediction], list[LabelledImage]]:
    """Each image has three places: a detection with a score from 0.1 to 0.9 that is real as often as its
    score says, with localisation scores that grow with the error of the box."""
    rng = np.random.default_rng(seed)
    predictions, truth = {}, []
    for i in range(images):
        detections, annotations = [], []
        for left in (0, 100, 200):
            score, shift = float(rng.uniform(0.1, 0.9)), float(rng.uniform(0, 4))
            real = rng.random() < score
            noise = float(rng.normal(0, 0.3))
            detections.append(
                detection(left, score, localisation=shift / 10 + 0.1 * noise, novelty=0.1, novelty_other=0.9)
            )
            if real:
                annotations.append(Annotation(box(left + shift), "a"))
        predictions[str(i)] = prediction(str(i), *detections)
        truth.append(image(str(i), *annotations))
    return predictions, truth


def test_novelty_is_fitted_on_detections_on_objects_of_their_class() -> None:
    found = prediction(
        "p",
        detection(0, 0.9, novelty=0.1, novelty_other=0.5),
        detection(1, 0.4, novelty=0.2, novelty_other=0.6),  # a second one of the same object
        detection(100, 0.8, novelty=0.3, novelty_other=0.7),  # on an object of another class
        detection(200, 0.7, novelty=0.4, novelty_other=0.8),  # on background
    )
    truth = image("p", Annotation(box(0), "a"), Annotation(box(100), "b"))
    values, novel = novelty_samples(match_images({"p": found}, [truth]))
    assert values.tolist() == [0.1, 0.2, 0.5, 0.6]
    assert novel.tolist() == [False, False, True, True]


@pytest.fixture(scope="module")
def calibration() -> UncertaintyCalibration:
    return fit_calibration(*labelled_set(400), NAMES, evaluated_on="d+b")


def test_scores_become_probabilities_of_their_errors(calibration: UncertaintyCalibration) -> None:
    predictions, truth = labelled_set(400, seed=1)
    applied = {key: calibration.apply(p) for key, p in predictions.items()}
    matched = match_images(applied, truth)
    risks = [d.risks for m in matched for d in m.detections]
    assert all(0 <= value <= 1 for r in risks for value in r.values())
    correct = np.concatenate([m.correct for m in matched])
    assert np.mean([r["correct"] for r in risks]) == pytest.approx(correct.mean(), abs=0.03)
    errors = [detection_errors(m)["localisation"] for m in matched]
    applies, error = (np.concatenate([getattr(e, name) for e in errors]) for name in ("applies", "error"))
    risk = np.array([r["localisation"] for r in risks])
    assert risk[applies].mean() == pytest.approx(error[applies].mean(), abs=0.05)
    assert risk[applies & error].mean() > risk[applies & ~error].mean() + 0.3


def test_missed_objects_and_corrections_are_calibrated(calibration: UncertaintyCalibration) -> None:
    predictions, truth = labelled_set(400, seed=1)
    applied = {key: calibration.apply(p) for key, p in predictions.items()}
    missed, actual, expected = [], [], []
    for matched in match_images(applied, truth):
        hidden = missed_objects(matched, calibration.threshold)
        false = int(((matched.scores >= calibration.threshold) & ~matched.correct).sum())
        risks = applied[matched.image.key].risks
        missed.append((risks["missed"], hidden > 0))
        actual.append(hidden + false)
        expected.append(risks["corrections"])
    risk, event = (np.array(column) for column in zip(*missed, strict=True))
    # objects whose box matches no detection at IoU 0.5 are missed without a trace
    assert risk.mean() == pytest.approx(event.mean(), abs=0.06)
    assert np.corrcoef(expected, actual)[0, 1] > 0.1


def test_detections_below_the_threshold_count_by_their_probability(
    calibration: UncertaintyCalibration,
) -> None:
    low = calibration.threshold * 0.3
    none = calibration.image_risks(())
    one = calibration.image_risks((detection(0, low),))
    likelier = calibration.image_risks((detection(0, calibration.threshold * 0.9),))
    duplicate = calibration.image_risks((detection(0, 0.89), detection(1, low)))
    assert none["corrections"] == 0
    assert 0 < one["corrections"] < likelier["corrections"] < 1
    assert one["missed"] < likelier["missed"]
    assert duplicate["missed"] == none["missed"]


def test_novelty_separates_known_from_left_out_classes(calibration: UncertaintyCalibration) -> None:
    curve = calibration.scores["novelty"]
    assert curve.probability(0.1) < 0.1
    assert curve.probability(0.9) > 0.8
    assert curve.base_rate == pytest.approx(1 / 3, abs=0.02)


def test_calibration_is_stored_with_the_model(calibration: UncertaintyCalibration, tmp_path: Path) -> None:
    assert UncertaintyCalibration.load(tmp_path) is None
    calibration.save(tmp_path)
    assert UncertaintyCalibration.load(tmp_path) == calibration
    assert (calibration.evaluated_on, calibration.images) == ("d+b", 400)
    (tmp_path / FILE).write_text('{"images": -1')
    with pytest.raises(ModelError, match=r"uncertainty\.json") as raised:
        UncertaintyCalibration.load(tmp_path)
    assert len(str(raised.value).splitlines()) == 1


def test_set_without_detections_gives_a_calibration() -> None:
    truth = [image("k", Annotation(box(0), "a")), image("l")]
    fitted = fit_calibration({"k": prediction("k")}, truth, NAMES)
    assert fitted.scores == {}
    assert 0 < fitted.image_risks(())["missed"] < 1


def test_class_scores_use_the_temperature(calibration: UncertaintyCalibration) -> None:
    hot = calibration.model_copy(update={"temperature": 4.0})
    cold = calibration.model_copy(update={"temperature": 1.0})
    one = prediction("k", detection(0, 0.8))
    first, second = (c.apply(one).detections[0].uncertainty["class_margin"] for c in (cold, hot))
    assert first < second
    assert replace(cold.apply(one), detections=()) == replace(hot.apply(one), detections=())
