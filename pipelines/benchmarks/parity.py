"""Whether every runtime finds what PyTorch finds in fp32, and what lower precision costs in mAP."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from dsmoe_core.data import coco
from dsmoe_core.data.external_images import evenly_spaced, read_external_images
from dsmoe_core.evaluation.coco_metrics import Evaluation, evaluate
from dsmoe_core.evaluation.matching import pairwise_iou
from dsmoe_core.export import export
from dsmoe_core.predict import Detector
from dsmoe_core.progress import StatusCallback
from dsmoe_core.runtimes.int8 import MAX_SAMPLES
from dsmoe_core.runtimes.loading import RuntimeOptions
from dsmoe_core.runtimes.openvino import has_bf16
from dsmoe_core.schema import Detection, LabelledImage, Prediction
from dsmoe_core.text_encoders.protocol import TextEncoder
from pipelines.evaluation.report.evaluated_model import EvaluatedModel
from pipelines.settings import MAX_PIXELS

MIN_SCORE = 0.05
SAME_IOU, SAME_SCORE = 0.99, 0.01


class Agreement(NamedTuple):
    """How the detections of two runtimes on the same images compare.

    Attributes:
        matched: share of the first's that the second has too: IoU at least 0.99 and score within 0.01.
        worst_iou, worst_score: smallest IoU and largest difference in score among those that have a
            counterpart of their class at all (IoU at least one half).
    """

    matched: float
    worst_iou: float
    worst_score: float


def agreement(ours: Sequence[Prediction], theirs: Sequence[Prediction]) -> Agreement:
    """Compare the detections on the same images, in the same order; the second's may go to a lower score."""
    pairs = [pair for a, b in zip(ours, theirs, strict=True) for pair in _pairs(a.detections, b.detections)]
    found = sum(len(one.detections) for one in ours)
    same = sum(iou >= SAME_IOU and gap <= SAME_SCORE for iou, gap in pairs)
    return Agreement(
        same / found if found else 1.0,
        min((iou for iou, _ in pairs), default=1.0),
        max((gap for _, gap in pairs), default=0.0),
    )


def _pairs(ours: Sequence[Detection], theirs: Sequence[Detection]) -> Iterator[tuple[float, float]]:
    """IoU and difference in score of each of ours and its best counterpart."""
    if not ours or not theirs:
        return
    overlap = pairwise_iou([f.box for f in ours], [f.box for f in theirs])
    for one, row in zip(ours, overlap, strict=True):
        best = max(range(len(theirs)), key=lambda i: (theirs[i].label == one.label, float(row[i])))
        if theirs[best].label == one.label and row[best] >= 0.5:
            yield float(row[best]), abs(theirs[best].score - one.score)


def measure(
    model: EvaluatedModel, text_encoder: TextEncoder, data: Path, *, images: int, on_status: StatusCallback
) -> dict[str, Any]:
    """Run a trained model by every runtime on the same labelled images.

    Args:
        data: val.json in COCO format, train.json to calibrate int8 with, and images/.
        images: how many of val.json, evenly from all of it.

    Returns:
        The key ``detections`` of latency.json.

    Raises:
        DataError: no image can be read.
        ClassBookError: the model does not know a class that is annotated.
    """
    with tempfile.TemporaryDirectory(prefix="dsmoe-") as scratch:
        folder = Path(scratch)
        on_status("reading images")
        truth = model.rename_labels(_labelled(data, "val.json", images, folder))
        others = [one.image for one in _labelled(data, "train.json", MAX_SAMPLES, folder)]
        on_status("exporting")
        graph, eight = folder / "graph", folder / "int8"
        graph.mkdir()
        eight.mkdir()
        export(model.folder, graph, export_format="onnx", text_encoder=text_encoder)
        export(
            model.folder,
            eight,
            export_format="openvino",
            precision="int8",
            text_encoder=text_encoder,
            calibration=others,
        )
        rows: list[dict[str, Any]] = []
        reference: list[Prediction] = []
        for where, how in _ways(model.folder, graph, eight):
            on_status(f"looking with {how.runtime} in {how.precision}")
            detector = Detector.load(where, text_encoder, how)
            detector.set_vocabulary(model.vocabulary)
            seen = (one.image for one in truth)
            found = list(detector.predict(seen, min_score=MIN_SCORE - SAME_SCORE))
            reference = reference or [_sure(one) for one in found]
            scores = evaluate(found, truth, model.vocabulary.names)
            rows.append(_row(how, found, agreement(reference, found), scores))
    config = detector.model.config
    head = {"model": model.name, "data": data.resolve().name, "pictures": len(truth)}
    return {**head, "size": config.size, "image_px": config.image_px, "rows": rows}


def _labelled(data: Path, name: str, most: int, scratch: Path) -> tuple[LabelledImage, ...]:
    """Some images of a COCO file, evenly from all of it."""
    known = coco.read(data / name)
    some = replace(known, images=tuple(evenly_spaced(known.images, most)))
    converted = scratch / name
    converted.mkdir()
    return read_external_images(some, data / "images", converted, max_pixels=MAX_PIXELS).labelled


def _ways(model: Path, graph: Path, eight: Path) -> list[tuple[Path, RuntimeOptions]]:
    """Eager fp32, which is the measure, first."""
    return [
        (model, RuntimeOptions("eager", "fp32")),
        (model, RuntimeOptions("eager", "bf16")),
        (graph, RuntimeOptions("onnxruntime", "fp32", "cpu")),
        (graph, RuntimeOptions("openvino", "fp32")),
        *([(graph, RuntimeOptions("openvino", "bf16"))] if has_bf16() else []),
        (eight, RuntimeOptions("openvino", "int8")),
    ]


def _sure(one: Prediction) -> Prediction:
    """Without what may fall below the least score by a difference that is allowed."""
    return replace(one, detections=tuple(f for f in one.detections if f.score >= MIN_SCORE))


def _row(
    how: RuntimeOptions, found: Sequence[Prediction], compared: Agreement, scores: Evaluation
) -> dict[str, Any]:
    return {
        "runtime": how.runtime,
        "dtype": how.precision,
        "findings": sum(len(_sure(one).detections) for one in found),
        "matched": round(compared.matched, 5),
        "worst_iou": round(compared.worst_iou, 5),
        "worst_score": round(compared.worst_score, 5),
        "map50": round(scores.map50, 4),
        "map": round(scores.map, 4),
    }
