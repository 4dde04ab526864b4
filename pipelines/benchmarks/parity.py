"""Whether runtimes give the detections of PyTorch in fp32, and the mAP that a lower precision costs.

Compared are PyTorch (eager), ONNX Runtime on the CPU and OpenVINO.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from dsmoe_core.data import coco
from dsmoe_core.data.external_images import evenly_spaced, read_external_images
from dsmoe_core.evaluation.coco_metrics import evaluate
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
from pipelines.settings.workspace import MAX_PIXELS

MIN_SCORE = 0.05
MATCH_IOU, MATCH_SCORE_GAP = 0.99, 0.01
COUNTERPART_IOU = 0.5


class Agreement(NamedTuple):
    """Agreement of the detections of two runtimes on the same images.

    Attributes:
        matched: share of one's detections that the other one has too: the same class, an IoU of at least
            ``MATCH_IOU`` and a score within ``MATCH_SCORE_GAP``. The smaller of the two directions.
        worst_iou, worst_score: lowest IoU and largest difference in score of the detections that have a
            counterpart of their class with an IoU of at least ``COUNTERPART_IOU``.
    """

    matched: float
    worst_iou: float
    worst_score: float


def agreement(first: Sequence[Prediction], second: Sequence[Prediction]) -> Agreement:
    """Compare the detections from ``MIN_SCORE`` on of predictions of the same images in the same order.

    Args:
        first, second: with the detections down to ``MIN_SCORE - MATCH_SCORE_GAP``, because the counterpart of
            a detection may be just below ``MIN_SCORE``.
    """
    shares, pairs = [], []
    for one, other in ((first, second), (second, first)):
        compared = _above_min_score(one)
        found = [
            pair
            for a, b in zip(compared, other, strict=True)
            for pair in _counterparts(a.detections, b.detections)
        ]
        total = sum(len(prediction.detections) for prediction in compared)
        matched = sum(iou >= MATCH_IOU and gap <= MATCH_SCORE_GAP for iou, gap in found)
        shares.append(matched / total if total else 1.0)
        pairs += found
    return Agreement(
        min(shares),
        min((iou for iou, _ in pairs), default=1.0),
        max((gap for _, gap in pairs), default=0.0),
    )


def _counterparts(first: Sequence[Detection], second: Sequence[Detection]) -> Iterator[tuple[float, float]]:
    """IoU and difference in score of each first detection that has a counterpart, and the best one."""
    if not first or not second:
        return
    ious = pairwise_iou([d.box for d in first], [d.box for d in second])
    for detection, row in zip(first, ious, strict=True):
        best = max(range(len(second)), key=lambda i: (second[i].label == detection.label, float(row[i])))
        if second[best].label == detection.label and row[best] >= COUNTERPART_IOU:
            yield float(row[best]), abs(second[best].score - detection.score)


def measure_parity(
    model: EvaluatedModel, text_encoder: TextEncoder, data: Path, *, images: int, on_status: StatusCallback
) -> dict[str, Any]:
    """Predict the same labelled images with a trained model on these runtimes, and compare the detections.

    Args:
        data: folder with val.json in COCO format, train.json for the calibration of int8, and images/.
        images: number of images, sampled evenly from val.json.

    Returns:
        The key ``findings`` of latency.json.

    Raises:
        DataError: no image can be read.
        ClassBookError: the model does not know an annotated class.
    """
    with tempfile.TemporaryDirectory(prefix="dsmoe-") as scratch:
        folder = Path(scratch)
        on_status("reading images")
        truth = model.rename_labels(_sample(data, "val.json", images, folder))
        calibration = [labelled.image for labelled in _sample(data, "train.json", MAX_SAMPLES, folder)]
        on_status("exporting")
        graph, int8 = folder / "graph", folder / "int8"
        graph.mkdir()
        int8.mkdir()
        export(model.folder, graph, export_format="onnx", text_encoder=text_encoder)
        export(
            model.folder,
            int8,
            export_format="openvino",
            precision="int8",
            text_encoder=text_encoder,
            calibration=calibration,
        )
        rows: list[dict[str, Any]] = []
        reference: list[Prediction] = []
        for model_folder, options in _runtime_options(model.folder, graph, int8):
            on_status(f"predicting with {options.runtime} in {options.precision}")
            detector = Detector.load(model_folder, text_encoder, options)
            detector.set_vocabulary(model.vocabulary)
            predictions = list(
                detector.predict(
                    (labelled.image for labelled in truth), min_score=MIN_SCORE - MATCH_SCORE_GAP
                )
            )
            reference = reference or predictions
            rows.append(_row(options, predictions, reference, truth, model.vocabulary.names))
    config = detector.model.config
    head = {"model": model.name, "data": data.resolve().name, "pictures": len(truth)}
    return {**head, "size": config.size, "image_px": config.image_px, "rows": rows}


def _sample(data: Path, name: str, max_images: int, scratch: Path) -> tuple[LabelledImage, ...]:
    """Images of a COCO file, sampled evenly."""
    annotations = coco.read(data / name)
    sampled = replace(annotations, images=tuple(evenly_spaced(annotations.images, max_images)))
    converted = scratch / name
    converted.mkdir()
    return read_external_images(sampled, data / "images", converted, max_pixels=MAX_PIXELS).labelled


def _runtime_options(model: Path, graph: Path, int8: Path) -> list[tuple[Path, RuntimeOptions]]:
    """Folders and the options to run them with; the reference, eager fp32, is first."""
    return [
        (model, RuntimeOptions("eager", "fp32")),
        (model, RuntimeOptions("eager", "bf16")),
        (graph, RuntimeOptions("onnxruntime", "fp32", "cpu")),
        (graph, RuntimeOptions("openvino", "fp32")),
        *([(graph, RuntimeOptions("openvino", "bf16"))] if has_bf16() else []),
        (int8, RuntimeOptions("openvino", "int8")),
    ]


def _above_min_score(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions without the detections below ``MIN_SCORE``, which another runtime may lack."""
    return [
        replace(p, detections=tuple(d for d in p.detections if d.score >= MIN_SCORE)) for p in predictions
    ]


def _row(
    options: RuntimeOptions,
    predictions: Sequence[Prediction],
    reference: Sequence[Prediction],
    truth: Sequence[LabelledImage],
    class_names: Sequence[str],
) -> dict[str, Any]:
    compared = agreement(reference, predictions)
    metrics = evaluate(predictions, truth, class_names)
    return {
        "runtime": options.runtime,
        "dtype": options.precision,
        "findings": sum(len(prediction.detections) for prediction in _above_min_score(predictions)),
        "matched": round(compared.matched, 5),
        "worst_iou": round(compared.worst_iou, 5),
        "worst_score": round(compared.worst_score, 5),
        "map50": round(metrics.map50, 4),
        "map": round(metrics.map, 4),
    }
