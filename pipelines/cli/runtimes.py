"""dsmoe export, predict"""

from __future__ import annotations

import json
import shutil
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.image_report import show_intensity_scale
from pipelines.cli.options import (
    BookOption,
    IntensityMaxOption,
    ModelArgument,
    RequiredImagesOption,
    WorkspaceOption,
    finite,
    open_workspace_or_none,
    output_file,
    replaced_folder,
)
from pipelines.cli.terminal import TerminalReporter, line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsmoe_core.data.image_folder import IngestResult
    from dsmoe_core.predict import Detector
    from dsmoe_core.runtimes.loading import RuntimeOptions
    from dsmoe_core.schema import ImageRecord, Prediction
    from pipelines.detectors.predict import DetectorSource, PredictImages
    from pipelines.progress import ProgressReporter
    from pipelines.workspace.workspace import Workspace


class ExportFormat(StrEnum):
    """Formats of an export."""

    ONNX = "onnx"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """Numeric precisions."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


class Runtime(StrEnum):
    """Inference runtimes."""

    EAGER = "eager"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


class Provider(StrEnum):
    """Execution providers of ONNX Runtime."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


class Engine(StrEnum):
    """Where predictions are computed."""

    LOCAL = "local"
    RAY = "ray"


ExportFolderOption = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder to create; replaces an earlier export.",
        callback=replaced_folder,
    ),
]
DetectionsOption = Annotated[
    Path, typer.Option("--json", metavar="FILE", help="File for the detections.", callback=output_file)
]
MinScoreOption = Annotated[
    float,
    typer.Option("--min-score", min=0, max=1, help="Minimum probability of a detection.", callback=finite),
]


RuntimeOption = Annotated[
    Runtime | None,
    typer.Option("--runtime", help="Inference runtime; default: PyTorch, or that of the export."),
]
PrecisionOption = Annotated[
    Precision | None, typer.Option("--precision", help="Default: bf16 for PyTorch, or that of the export.")
]
EngineOption = Annotated[
    Engine, typer.Option("--engine", help="local: this process; ray: several workers, resumable.")
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="Ray cluster; default: one on this machine."),
]


def export(
    model: ModelArgument,
    export_format: Annotated[ExportFormat, typer.Option("--format", help="Format of the export.")],
    out: ExportFolderOption,
    precision: Annotated[
        Precision, typer.Option("--precision", help="Precision at run time; int8 is for OpenVINO.")
    ] = Precision.FP32,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", metavar="DIR", help="Calibration images for int8."),
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Export a model to ONNX or OpenVINO; its classes can be changed without a new export.

    Example: `dsmoe export champion --workspace boards --format openvino --precision bf16 --out line-3`
    """
    from dsmoe_core.atomic import atomic_folder
    from dsmoe_core.data.external_images import read_external_folder
    from dsmoe_core.export import export as export_model
    from dsmoe_core.runtimes.exported import FILES
    from dsmoe_core.runtimes.int8 import MAX_SAMPLES
    from dsmoe_core.runtimes.loading import training_intensity_max
    from pipelines.detectors.ds_moe import dsmoe_backend
    from pipelines.settings.environment import Environment
    from pipelines.settings.workspace import MAX_PIXELS
    from pipelines.workspace.model_ref import resolve_model

    with (
        open_workspace_or_none(workspace) as opened,
        tempfile.TemporaryDirectory(prefix="dsmoe-") as scratch,
        atomic_folder(out, FILES) as draft,
    ):
        resolved = resolve_model(model, opened)
        images: tuple[ImageRecord, ...] = ()
        if calibration is not None:
            images = read_external_folder(
                calibration,
                Path(scratch),
                max_pixels=MAX_PIXELS,
                max_images=MAX_SAMPLES,
                intensity_max=training_intensity_max(resolved.folder),
            ).images
        line(f"exporting {resolved.folder}")
        card = export_model(
            resolved.folder,
            draft,
            export_format=export_format.value,
            precision=precision.value,
            text_encoder=dsmoe_backend(opened, Environment.read()).text_encoder,
            calibration=images,
        )
    if card.difference is not None:
        logits, boxes = card.difference
        line(f"largest difference from PyTorch in fp32: logits {logits:.1e}, boxes {boxes:.1e} pixels")
    line(f"{out}: {card.format}, {card.precision}, {card.config.image_px} px")


def predict(
    model: ModelArgument,
    images: RequiredImagesOption,
    as_json: DetectionsOption,
    workspace: WorkspaceOption = None,
    class_book: BookOption = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    provider: Annotated[Provider, typer.Option("--provider", help="Of ONNX Runtime.")] = Provider.AUTO,
    min_score: MinScoreOption = 0.05,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images per forward pass.")] = 8,
    intensity_max: IntensityMaxOption = None,
    engine: EngineOption = Engine.LOCAL,
    address: AddressOption = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes of --engine ray.")] = 2,
) -> None:
    """Detect defects on a folder of images, and write them as a COCO file with class probabilities.

    MODEL may also be an export folder. With `--engine ray`, FILE.parts next to the COCO file has the shards
    that are complete; the same command continues with the others.

    Example: `dsmoe predict line-3 --images today --min-score 0.3 --json today.json`
    """
    from dsmoe_core.atomic import atomic_write
    from dsmoe_core.runtimes.loading import RuntimeOptions
    from pipelines.detectors.predict import DetectorSource, predict_folder
    from pipelines.workspace.model_ref import resolve_model
    from prompts.class_book import ClassBook

    book = ClassBook.load(class_book) if class_book is not None else None
    options = RuntimeOptions(
        runtime.value if runtime else None, precision.value if precision else None, provider.value
    )
    parts = as_json.with_name(f"{as_json.name}.parts")
    with open_workspace_or_none(workspace) as opened, TerminalReporter() as progress:
        progress.status("loading the model")
        resolved = resolve_model(model, opened)
        detector = _load_detector(resolved.folder, opened, options)
        if detector.model.intensity_max is None and resolved.workspace is not None:
            intensity_max = intensity_max or resolved.workspace.intensity_max()
        book = book or (resolved.workspace.class_book() if resolved.workspace else None)
        vocabulary = book.vocabulary() if book else detector.model.vocabulary
        place = opened.path if opened else None
        source = DetectorSource(resolved.folder.resolve(), place, options, vocabulary, min_score, batch)
        on_ray = _ray_engine(source, parts, workers, address, detector.model.version)
        document, ingest = predict_folder(
            detector,
            vocabulary,
            images,
            min_score=min_score,
            batch=batch,
            intensity_max=intensity_max,
            progress=progress,
            scratch=None if engine is Engine.LOCAL else parts / "images",
            engine=None if engine is Engine.LOCAL else on_ray,
        )
    atomic_write(as_json, json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    if engine is Engine.RAY:
        shutil.rmtree(parts, ignore_errors=True)
    _report(document, ingest, as_json)


def _load_detector(folder: Path, workspace: Workspace | None, options: RuntimeOptions) -> Detector:
    """The detector in a folder, with the text encoder of a workspace or the default one."""
    from dsmoe_core.predict import Detector
    from pipelines.detectors.ds_moe import dsmoe_backend
    from pipelines.settings.environment import Environment

    return Detector.load(folder, dsmoe_backend(workspace, Environment.read()).text_encoder, options)


def _ray_engine(
    source: DetectorSource, parts: Path, workers: int, address: str | None, model: str
) -> PredictImages:
    """Prediction on Ray, whose complete shards are in a folder."""

    def predict_images(images: Sequence[ImageRecord], progress: ProgressReporter) -> list[Prediction]:
        from pipelines.orchestration.ray_engine import RaySettings, predict_on_ray

        identity = {
            "model": model,
            "vocabulary": source.vocabulary.to_dict(),
            "options": [source.options.runtime, source.options.precision, source.options.provider],
            "min_score": source.min_score,
            "batch": source.batch,
        }
        settings = RaySettings(workers, parts.resolve(), address)
        return predict_on_ray(
            images, source.load, settings, batch=source.batch, identity=identity, progress=progress.advance
        )

    return predict_images


def _report(document: dict[str, Any], ingest: IngestResult, as_json: Path) -> None:
    """Print how the images were read, which were left out, and the number of detections."""
    show_intensity_scale(ingest.scale, ingest.clipped)
    for image in document["left_out"]:
        line(f"left out: {image['file_name']}: {image['reason']}", "yellow")
    detections, count, info = len(document["annotations"]), len(document["images"]), document["info"]
    line(f"{as_json}: {detections} detections on {count} images, {info['runtime']} in {info['precision']}")
