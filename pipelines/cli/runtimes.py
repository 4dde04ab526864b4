"""dsmoe export, predict"""

from __future__ import annotations

import json
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import BookOption, ModelArgument, WorkspaceOption, open_workspace_or_none
from pipelines.cli.terminal import TerminalReporter, line

if TYPE_CHECKING:
    from dsmoe_core.schema import ImageRecord


class ExportFormat(StrEnum):
    """What to export to."""

    ONNX = "onnx"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """What to compute in."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


class Runtime(StrEnum):
    """What computes."""

    EAGER = "eager"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


class Provider(StrEnum):
    """What ONNX Runtime computes on."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


def export(
    model: ModelArgument,
    export_format: Annotated[ExportFormat, typer.Option("--format", help="What to export to.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to make; an earlier export gives way.")
    ],
    precision: Annotated[
        Precision, typer.Option("--precision", help="What it shall be run in; int8 is for OpenVINO.")
    ] = Precision.FP32,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", metavar="DIR", help="Images that show int8 what values to expect."),
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Export a model to ONNX or OpenVINO; its classes can still be changed.

    Example: `dsmoe export champion --workspace boards --format openvino --precision bf16 --out line-3`
    """
    from dsmoe_core.atomic import atomic_folder
    from dsmoe_core.data.external_images import read_external_folder
    from dsmoe_core.export import export as run
    from dsmoe_core.runtimes.exported import FILES
    from dsmoe_core.runtimes.int8 import MAX_SAMPLES
    from pipelines.detectors.ds_moe import dsmoe_backend
    from pipelines.settings import MAX_PIXELS, Environment
    from pipelines.workspace.model_ref import resolve_model

    with (
        open_workspace_or_none(workspace) as opened,
        tempfile.TemporaryDirectory(prefix="dsmoe-") as scratch,
        atomic_folder(out, FILES) as draft,
    ):
        named = resolve_model(model, opened)
        images: tuple[ImageRecord, ...] = ()
        if calibration is not None:
            images = read_external_folder(
                calibration, Path(scratch), max_pixels=MAX_PIXELS, max_images=MAX_SAMPLES
            ).images
        line(f"exporting {named.folder}")
        card = run(
            named.folder,
            draft,
            export_format=export_format.value,
            precision=precision.value,
            text_encoder=dsmoe_backend(opened, Environment.read()).text_encoder,
            calibration=images,
        )
    if card.difference is not None:
        logits, boxes = card.difference
        line(f"against PyTorch in fp32: logits within {logits:.1e}, boxes within {boxes:.1e} pixels")
    line(f"{out}: {card.format}, {card.precision}, {card.config.image_px} px")


def predict(
    model: ModelArgument,
    images: Annotated[Path, typer.Option("--images", metavar="DIR", help="Folder of images.")],
    as_json: Annotated[Path, typer.Option("--json", metavar="FILE", help="Where to write what was found.")],
    workspace: WorkspaceOption = None,
    class_book: BookOption = None,
    runtime: Annotated[
        Runtime | None, typer.Option("--runtime", help="What computes; default: what MODEL is made for.")
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option("--precision", help="Default: bf16 for PyTorch, else what it was exported for."),
    ] = None,
    provider: Annotated[
        Provider, typer.Option("--provider", help="What ONNX Runtime computes on.")
    ] = Provider.AUTO,
    min_score: Annotated[
        float, typer.Option("--min-score", min=0, max=1, help="Leave out what is less probable.")
    ] = 0.05,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images at once.")] = 8,
) -> None:
    """Find defects on a folder of images, and write them as COCO results with their probabilities.

    MODEL may be an exported folder too.

    Example: `dsmoe predict line-3 --images today --min-score 0.3 --json today.json`
    """
    from dsmoe_core.atomic import atomic_write
    from dsmoe_core.predict import Detector
    from dsmoe_core.runtimes.loading import RuntimeOptions
    from pipelines.detectors.ds_moe import dsmoe_backend
    from pipelines.detectors.predict import predict_folder
    from pipelines.settings import Environment
    from pipelines.workspace.model_ref import resolve_model
    from prompts.class_book import ClassBook

    book = ClassBook.load(class_book) if class_book is not None else None
    options = RuntimeOptions(
        runtime.value if runtime else None, precision.value if precision else None, provider.value
    )
    with open_workspace_or_none(workspace) as opened, TerminalReporter() as progress:
        progress.status("loading the model")
        named = resolve_model(model, opened)
        detector = Detector.load(
            named.folder, dsmoe_backend(opened, Environment.read()).text_encoder, options
        )
        book = book or (named.workspace.class_book() if named.workspace else None)
        found = predict_folder(
            detector,
            book.vocabulary() if book else detector.model.vocabulary,
            images,
            min_score=min_score,
            batch=batch,
            progress=progress,
        )
    atomic_write(as_json, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    for one in found["left_out"]:
        line(f"left out: {one['file_name']}: {one['reason']}", "yellow")
    detections, count, info = len(found["annotations"]), len(found["images"]), found["info"]
    line(f"{as_json}: {detections} detections on {count} images, {info['runtime']} in {info['precision']}")
