"""Predictions on a folder of images as one COCO document, with any runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dsmoe_core.data.external_images import read_external_folder
from dsmoe_core.data.image_folder import IngestResult
from dsmoe_core.predict import Detector
from dsmoe_core.runtimes.loading import RuntimeOptions
from dsmoe_core.schema import Detection, ImageRecord, Prediction, Vocabulary
from pipelines.detectors.backend import PredictFunction
from pipelines.progress import ProgressReporter
from pipelines.settings.workspace import MAX_PIXELS

PredictImages = Callable[[Sequence[ImageRecord], ProgressReporter], list[Prediction]]
"""Predicts images in order, in this process or elsewhere."""


@dataclass(frozen=True, slots=True)
class DetectorSource:
    """All that another process needs to load the same detector; it can be pickled.

    Attributes:
        workspace: whose text encoder is used; None: the default one.
        min_score: lowest score of a detection, 0 to 1.
        batch: images per forward pass.
    """

    folder: Path
    workspace: Path | None
    options: RuntimeOptions
    vocabulary: Vocabulary
    min_score: float
    batch: int

    def load(self) -> PredictFunction:
        """The detector as a function.

        Raises:
            ModelError: the folder does not hold a complete model.
        """
        from pipelines.detectors.ds_moe import dsmoe_backend
        from pipelines.settings.environment import Environment
        from pipelines.workspace.workspace import Workspace

        with ExitStack() as stack:
            opened = stack.enter_context(Workspace.open(self.workspace)) if self.workspace else None
            encoder = dsmoe_backend(opened, Environment.read()).text_encoder
            detector = Detector.load(self.folder, encoder, self.options)
            detector.set_vocabulary(self.vocabulary)
        return partial(detector.predict, min_score=self.min_score, batch=self.batch)


class FolderPrediction(NamedTuple):
    """Predictions on a folder.

    Attributes:
        document: see :func:`coco_document`.
        ingest: the images that were read, and those that were not.
    """

    document: dict[str, Any]
    ingest: IngestResult


def predict_folder(
    detector: Detector,
    vocabulary: Vocabulary,
    images: Path,
    *,
    min_score: float,
    batch: int,
    intensity_max: int | None = None,
    progress: ProgressReporter,
    scratch: Path | None = None,
    engine: PredictImages | None = None,
) -> FolderPrediction:
    """Predict on every readable image of a folder.

    Args:
        min_score: lowest score of a detection, 0 to 1.
        batch: images per forward pass.
        intensity_max: value that is white in images of more than 8 bits; None: the model's.
        scratch: folder for converted images that other processes read; None: a temporary one.
        engine: predicts the images; None: ``detector`` in this process.

    Raises:
        DataError: there is no folder, or no readable image in it.
    """
    detector.set_vocabulary(vocabulary)
    with tempfile.TemporaryDirectory(prefix="dsmoe-") as temporary:
        converted = scratch or Path(temporary)
        converted.mkdir(parents=True, exist_ok=True)
        progress.status("reading images")
        ingest = read_external_folder(
            images,
            converted,
            max_pixels=MAX_PIXELS,
            intensity_max=intensity_max or detector.model.intensity_max,
            progress=progress.advance,
        )
        progress.status("predicting")
        if engine is not None:
            predictions = engine(ingest.images, progress)
            return FolderPrediction(coco_document(detector, vocabulary, ingest, predictions), ingest)
        predictions = []
        for prediction in detector.predict(ingest.images, min_score=min_score, batch=batch):
            predictions.append(prediction)
            progress.advance(len(predictions), len(ingest.images))
    return FolderPrediction(coco_document(detector, vocabulary, ingest, predictions), ingest)


def coco_document(
    detector: Detector, vocabulary: Vocabulary, ingest: IngestResult, predictions: Sequence[Prediction]
) -> dict[str, Any]:
    """COCO's images, categories and annotations, plus all class probabilities and the routing.

    Boxes are [x, y, width, height] in pixels of the upright image.
    """
    categories = {name: i for i, name in enumerate(vocabulary.names, start=1)}
    numbered = list(enumerate(zip(ingest.images, predictions, strict=True), start=1))
    detections = [(i, detection) for i, (_, p) in numbered for detection in p.detections]
    return {
        "info": {
            "model": detector.model.version,
            "runtime": detector.model.runtime.name,
            "precision": detector.model.runtime.precision,
            "class_book": vocabulary.version,
            "intensity_max": ingest.scale.intensity_max if ingest.scale else None,
        },
        "images": [_image_json(i, image, prediction) for i, (image, prediction) in numbered],
        "categories": [{"id": i, "name": name} for name, i in categories.items()],
        "annotations": [
            {"id": k, "image_id": i, "category_id": categories[d.label], **_detection_json(d)}
            for k, (i, d) in enumerate(detections, start=1)
        ],
        "left_out": [{"file_name": q.name, "reason": q.reason} for q in ingest.quarantined],
    }


def _image_json(number: int, image: ImageRecord, prediction: Prediction) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": image.name,
        "width": image.width,
        "height": image.height,
        "uncertainty": prediction.uncertainty,
        "routing": {
            "experts": list(prediction.routing.experts),
            "weights": list(prediction.routing.weights),
            "entropy": prediction.routing.entropy,
        },
    }


def _detection_json(detection: Detection) -> dict[str, Any]:
    box = detection.box
    return {
        "bbox": [box.x1, box.y1, box.width, box.height],
        "area": box.area,
        "iscrowd": 0,
        "score": detection.score,
        "probabilities": dict(detection.probabilities),
        "entropy": detection.entropy,
    }
