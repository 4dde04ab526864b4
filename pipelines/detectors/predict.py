"""Findings on a folder of pictures as one COCO document, whichever runtime finds them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsmoe_core.data.external_images import folder_in_place
from dsmoe_core.data.image_folder import Ingest
from dsmoe_core.predict import Detector
from dsmoe_core.schema import Finding, Picture, PictureFindings, Vocabulary
from pipelines.progress import Told
from pipelines.settings import MAX_PIXELS


def predict(
    detector: Detector, vocabulary: Vocabulary, images: Path, *, min_score: float, batch: int, told: Told
) -> dict[str, Any]:
    """Look at every picture of a folder that can be read.

    Raises:
        DataError: there is no folder, or no such picture in it.
    """
    detector.use(vocabulary)
    with tempfile.TemporaryDirectory(prefix="dsmoe-") as scratch:
        told.say("reading pictures")
        taken = folder_in_place(images, Path(scratch), max_pixels=MAX_PIXELS, progress=told.advance)
        told.say("looking at pictures")
        found = []
        for one in detector.findings(taken.pictures, min_score=min_score, batch=batch):
            found.append(one)
            told.advance(len(found), len(taken.pictures))
    return document(detector, vocabulary, taken, found)


def document(
    detector: Detector, vocabulary: Vocabulary, taken: Ingest, found: Sequence[PictureFindings]
) -> dict[str, Any]:
    """COCO's images, categories and annotations; beyond COCO, all probabilities and the routing.

    Boxes are [x, y, width, height] in pixels of the picture as it is shown, turned upright.
    """
    categories = {name: i for i, name in enumerate(vocabulary.names, start=1)}
    images = [_image(i, p, f) for i, (p, f) in enumerate(zip(taken.pictures, found, strict=True), start=1)]
    every = [(i, one) for i, f in enumerate(found, start=1) for one in f.findings]
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


def _image(number: int, picture: Picture, found: PictureFindings) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": picture.name,
        "width": picture.width,
        "height": picture.height,
        "uncertainty": found.uncertainty,
        "routing": {
            "experts": list(found.routing.experts),
            "weights": list(found.routing.weights),
            "entropy": found.routing.entropy,
        },
    }


def _said(finding: Finding) -> dict[str, Any]:
    box = finding.box
    return {
        "bbox": [box.x1, box.y1, box.width, box.height],
        "area": box.area,
        "iscrowd": 0,
        "score": finding.score,
        "probabilities": dict(finding.probabilities),
        "entropy": finding.entropy,
    }
