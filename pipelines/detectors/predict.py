"""Detections on a folder of images as one COCO document, whichever runtime finds them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsmoe_core.data.external_images import read_external_folder
from dsmoe_core.data.image_folder import IngestResult
from dsmoe_core.predict import Detector
from dsmoe_core.schema import Detection, ImageRecord, Prediction, Vocabulary
from pipelines.progress import ProgressReporter
from pipelines.settings import MAX_PIXELS


def predict_folder(
    detector: Detector,
    vocabulary: Vocabulary,
    images: Path,
    *,
    min_score: float,
    batch: int,
    progress: ProgressReporter,
) -> dict[str, Any]:
    """See every image of a folder that can be read.

    Raises:
        DataError: there is no folder, or no such image in it.
    """
    detector.set_vocabulary(vocabulary)
    with tempfile.TemporaryDirectory(prefix="dsmoe-") as scratch:
        progress.status("reading images")
        taken = read_external_folder(images, Path(scratch), max_pixels=MAX_PIXELS, progress=progress.advance)
        progress.status("looking at images")
        found = []
        for one in detector.predict(taken.images, min_score=min_score, batch=batch):
            found.append(one)
            progress.advance(len(found), len(taken.images))
    return coco_document(detector, vocabulary, taken, found)


def coco_document(
    detector: Detector, vocabulary: Vocabulary, taken: IngestResult, found: Sequence[Prediction]
) -> dict[str, Any]:
    """COCO's images, categories and annotations; beyond COCO, all probabilities and the routing.

    Boxes are [x, y, width, height] in pixels of the image as it is shown, turned upright.
    """
    categories = {name: i for i, name in enumerate(vocabulary.names, start=1)}
    images = [_image(i, p, f) for i, (p, f) in enumerate(zip(taken.images, found, strict=True), start=1)]
    every = [(i, one) for i, f in enumerate(found, start=1) for one in f.detections]
    return {
        "info": {
            "model": detector.model.version,
            "runtime": detector.model.runtime.name,
            "precision": detector.model.runtime.precision,
            "class_book": vocabulary.version,
        },
        "images": images,
        "categories": [{"id": i, "name": name} for name, i in categories.items()],
        "annotations": [
            {"id": k, "image_id": image, "category_id": categories[one.label], **_said(one)}
            for k, (image, one) in enumerate(every, start=1)
        ],
        "left_out": [{"file_name": q.name, "reason": q.reason} for q in taken.quarantined],
    }


def _image(number: int, image: ImageRecord, found: Prediction) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": image.name,
        "width": image.width,
        "height": image.height,
        "uncertainty": found.uncertainty,
        "routing": {
            "experts": list(found.routing.experts),
            "weights": list(found.routing.weights),
            "entropy": found.routing.entropy,
        },
    }


def _said(detection: Detection) -> dict[str, Any]:
    box = detection.box
    return {
        "bbox": [box.x1, box.y1, box.width, box.height],
        "area": box.area,
        "iscrowd": 0,
        "score": detection.score,
        "probabilities": dict(detection.probabilities),
        "entropy": detection.entropy,
    }
