"""Predicts with a trained model and evaluates its uncertainty scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dsmoe_core.errors import SettingsError
from dsmoe_core.predict import Detector
from dsmoe_core.runtimes.loading import RuntimeOptions, load_inference_model
from dsmoe_core.schema import ImageRecord, LabelledImage, Vocabulary
from dsmoe_core.uncertainty.novelty import KnownFeatures
from dsmoe_core.uncertainty.training_features import training_features
from pipelines.benchmarks.planted_descriptions import measure_planted_descriptions
from pipelines.benchmarks.uncertainty import evaluate_scores, evaluate_unseen_class
from pipelines.benchmarks.uncertainty_samples import measure_cost, predict_samples
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.evaluation.report.evaluated_model import EvaluatedModel
from pipelines.progress import ProgressReporter
from pipelines.workspace.relabel import relabel_image
from prompts.class_entry import normalized_name


def measure_uncertainty(
    model: EvaluatedModel,
    truth: Sequence[LabelledImage],
    training: Sequence[LabelledImage],
    other: Sequence[ImageRecord],
    *,
    resamples: int,
    seed: int,
    progress: ProgressReporter,
) -> dict[str, Any]:
    """Content of uncertainty.json.

    The known features of ``novelty`` are those of ``training``, whatever the model's folder has.

    Args:
        truth: labelled images that the model was not trained on.
        training: labelled images of its training.
        other: images of another data set; may be empty.
        resamples, seed: of the bootstrap over images.

    Raises:
        SettingsError: the model is not a DS-MoE detector, or has one class only.
        ModelError: there is no model in the folder, or it does not fit.
    """
    backend, vocabulary = model.detector, model.vocabulary
    if not isinstance(backend, DSMoEBackend) or len(vocabulary) < 2:
        problem = f"model {model.name} is not a DS-MoE detector of several classes"
        raise SettingsError(problem, "Give a model that dsmoe trained on two classes or more.")
    loaded = load_inference_model(model.folder, RuntimeOptions(precision="fp32"))

    def detector(classes: Vocabulary, known: KnownFeatures | None, *, second: bool = True) -> Detector:
        made = Detector(loaded, backend.text_encoder, second_selection=second)
        made.calibration, made.known = None, known
        made.set_vocabulary(classes)
        return made

    progress.status("features of training boxes")
    known = training_features(detector(vocabulary, None, second=False), training, vocabulary.names)
    reduced = {
        name: detector(replace(vocabulary, classes=tuple(c for c in vocabulary if c.name != name)), known)
        for name in vocabulary.names
    }
    complete = detector(vocabulary, known)
    progress.status("predicting")
    images = [labelled.image for labelled in truth]
    samples = predict_samples(complete, reduced, vocabulary, images, progress.advance)
    others = list(complete.predict(other))
    progress.status("cost")
    cost = measure_cost(detector(vocabulary, known, second=False), complete, images)
    progress.status("bootstrap")
    evaluated = evaluate_scores(samples, truth, vocabulary.names, others, resamples=resamples, seed=seed)
    progress.status("planted descriptions")
    evaluated |= measure_planted_descriptions(
        lambda classes: detector(classes, known, second=False).predict(images),
        vocabulary,
        resamples=resamples,
        seed=seed,
    )
    known_boxes = {"images": len(training), "boxes": len(known.labels)}
    return {"model": model.version, "known": known_boxes, **evaluated, "relative_cost": cost}


def measure_unseen_class(
    model: EvaluatedModel,
    truth: Sequence[LabelledImage],
    training: Sequence[LabelledImage],
    *,
    resamples: int,
    seed: int,
    progress: ProgressReporter,
) -> dict[str, Any]:
    """The scores that should notice a class which a model was not trained on.

    Args:
        model: trained on images without one of the classes in ``truth``.
        truth: labelled images that it was not trained on, with the names of the data set.
        training: labelled images whose boxes of the other classes are the known features.

    Raises:
        SettingsError: the model knows all classes, or lacks more than one; or it is not a DS-MoE detector.
    """
    backend, unseen = model.detector, model.unknown_labels(truth)
    if len(unseen) != 1 or not isinstance(backend, DSMoEBackend):
        lacking = ", ".join(unseen) or "none"
        raise SettingsError(
            f"model {model.name} lacks these classes of the labels: {lacking}; expected one",
            "Give a model that dsmoe trained on images without one of the classes.",
        )
    renamed, known = (
        [relabel_image(item, lambda name: model.aliases.get(normalized_name(name), name)) for item in part]
        for part in (truth, training)
    )
    progress.status(f"predicting {unseen[0]} with a model that never saw it")
    detector = Detector.load(model.folder, backend.text_encoder)
    detector.calibration = detector.known = None
    detector.set_vocabulary(model.vocabulary)
    detector.known = training_features(detector, known, model.vocabulary.names)
    detector.set_vocabulary(model.vocabulary)
    predictions = {p.key: p for p in detector.predict([item.image for item in renamed])}
    scores = evaluate_unseen_class(predictions, renamed, unseen[0], resamples=resamples, seed=seed)
    boxes = sum(a.label == unseen[0] for item in renamed for a in item.annotations)
    return {"class": unseen[0], "model": model.version, "boxes": boxes, "scores": scores}
