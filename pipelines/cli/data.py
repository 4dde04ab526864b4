"""Commands `dsmoe data synthesize`, `preview` and `anchors`."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsmoe_core.data.import_account import Unlabelled
from pipelines.cli.labels import LabelRequest, PredictionsOption, StrictOption, read_labels, show_accounts
from pipelines.cli.options import (
    ImagesOption,
    PxOption,
    SeedOption,
    SyntheticKindChoice,
    output_file,
    output_folder,
)
from pipelines.cli.terminal import TerminalReporter, console, line

if TYPE_CHECKING:
    from dsmoe_core.config import TrainingConfig
    from dsmoe_core.data.anchors import Recommendation
    from pipelines.datasets.labelled_data import LabelledData

app = typer.Typer(help="Make synthetic images; look at and export labelled images.", no_args_is_help=True)

WorkspaceArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="WORKSPACE", help="Workspace whose labelled images are used; default: the current folder."
    ),
]
AnnotationsOption = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        metavar="FILE|DIR",
        help="Labels to use instead of a workspace: COCO file, VOC or YOLO folder. Default settings apply.",
    ),
]
TileOption = Annotated[
    int | None,
    typer.Option(
        "--tile", min=64, help="Cut images into tiles of this side in pixels; default: the settings'."
    ),
]


@app.command("synthesize")
def synthesize(
    kind: Annotated[SyntheticKindChoice, typer.Argument(metavar="KIND", help="pcb, aluminium or glass.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to create.", callback=output_folder)
    ],
    train: Annotated[int, typer.Option("--train", min=1, help="Images in train.json.")] = 400,
    val: Annotated[int, typer.Option("--val", min=1, help="Images in val.json.")] = 100,
    px: Annotated[int, typer.Option("--px", min=64, max=4096, help="Side of the images in pixels.")] = 320,
    seed: SeedOption = 42,
) -> None:
    """Make synthetic images with labelled defects: boards, aluminium sheets, or bottle bottoms.

    Example: `dsmoe data synthesize glass --out bottles --train 400 --val 100`
    """
    from dsmoe_core.atomic import disk_full_as_error, refuse_unknown_files
    from dsmoe_core.data.synthetic import SYNTHETIC_SET_FILES, write_synthetic_set

    refuse_unknown_files(out, SYNTHETIC_SET_FILES)
    with TerminalReporter() as progress, disk_full_as_error(out):
        progress.status(f"making synthetic images: {kind.value}")
        write_synthetic_set(out, kind.value, train, val, seed=seed, px=px, progress=progress.advance)
    line(f"{out}: {train} images in train.json, {val} in val.json")


@app.command("preview")
def preview(
    out: Annotated[
        Path,
        typer.Option("--out", metavar="SHEET.png", help="Contact sheet to write.", callback=output_file),
    ],
    workspace: WorkspaceArgument = None,
    images: ImagesOption = None,
    annotations: AnnotationsOption = None,
    count: Annotated[int, typer.Option("--count", min=1, max=200, help="Images on the sheet.")] = 12,
    each: Annotated[
        bool, typer.Option("--each", help="Show one row for each augmentation, applied alone.")
    ] = False,
    px: PxOption = None,
    tile: TileOption = None,
    strict: StrictOption = False,
    predictions_as_labels: PredictionsOption = False,
    seed: SeedOption = 42,
) -> None:
    """Show images as the network sees them in training: augmented, with boxes and the augmentations used.

    If the image encoder is frozen, as by default, these are flips and turns.

    Example: `dsmoe data preview boards --out sheet.png --each`
    """
    from dsmoe_core.atomic import disk_full_as_error
    from dsmoe_core.data.letterbox import LetterboxReader
    from dsmoe_core.errors import SettingsError
    from dsmoe_core.tiling import training_views
    from pipelines.datasets.contact_sheet import augmentation_rows, render_sheet, training_rows

    if out.suffix.lower() != ".png":
        raise SettingsError(f"--out is {out}; expected a name that ends in .png", "Change the name.")
    data = _data(workspace, images, annotations, px, tile, LabelRequest(strict, None, predictions_as_labels))
    training = _training_settings(data, of_files=annotations is not None).model_copy(update={"seed": seed})
    columns = min(count, 6) if each else min(count, math.ceil(math.sqrt(1.5 * count)))
    with tempfile.TemporaryDirectory() as scratch:
        sample = data.sample(columns if each else count, seed, Path(scratch))
        views = training_views(sample.labelled, data.model.tiles)
        data_set = (views, data.classes, LetterboxReader.for_model(data.model), training)
        rows = augmentation_rows(*data_set, columns) if each else training_rows(*data_set, count, columns)
    draft = out.with_name(f".{out.name}.draft")
    try:
        with disk_full_as_error(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            render_sheet(rows, data.classes, cell=240).save(draft, format="PNG")
            draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    for image in sample.skipped:
        line(f"skipped: {image.name}: {image.reason}")
    line(f"{out} is written")


def _training_settings(data: LabelledData, *, of_files: bool) -> TrainingConfig:
    """The settings of a training on the data, with the augmentations that are in effect.

    Args:
        of_files: the data is not of a workspace, so the training would start as in a new one.
    """
    from dsmoe_core.data.augment.choice import cacheable_augmentations
    from pipelines.settings.detector import default_encoder
    from pipelines.training.weights import default_start

    frozen = default_encoder(default_start("nano")) == "frozen" if of_files else data.frozen
    if not frozen:
        return data.training
    line("the image encoder is frozen in training: augmentations other than flips and turns are off")
    return cacheable_augmentations(data.training)


@app.command("anchors")
def anchors(
    workspace: WorkspaceArgument = None,
    images: ImagesOption = None,
    annotations: AnnotationsOption = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="Number of clusters.")] = 9,
    px: PxOption = None,
    tile: TileOption = None,
    strict: StrictOption = False,
    predictions_as_labels: PredictionsOption = False,
    seed: SeedOption = 42,
) -> None:
    """Cluster box sizes (k-means, distance 1 - IoU) and recommend head strides and tile size.

    Example: `dsmoe data anchors boards -k 9`
    """
    from rich.table import Table

    from dsmoe_core.config import STRIDES
    from dsmoe_core.data.anchors import BoxSizes, kmeans, off_grid_share, recommend

    data = _data(workspace, images, annotations, px, tile, LabelRequest(strict, None, predictions_as_labels))
    model = data.model
    sizes = BoxSizes.of((p.image.width, p.image.height, p.annotations) for p in data.images)
    tile_px = model.tiles.px if model.tiles else None
    boxes = sizes.at_network_input(model.image_px, tile_px)
    clusters = kmeans(boxes, k, seed)
    finest = min(model.head_strides)
    narrow = float((boxes.min(1) < finest).mean())
    table = Table("width", "height", "boxes", f"cells of stride {finest}")
    for (width, height), share in zip(clusters.sizes, clusters.shares, strict=True):
        table.add_row(f"{width:.1f}", f"{height:.1f}", f"{share:.0%}", f"{width * height / finest**2:.1f}")
    console.print(table)
    view = f"tiles of {tile_px} px" if tile_px else "whole images"
    line(f"{len(boxes)} boxes, measured at the network's input: {view}, side {model.image_px} px.")
    line(f"Mean best IoU of {len(clusters.sizes)} clusters: {clusters.mean_best_iou:.3f}.")
    for stride in STRIDES:
        where = " (in the head)" if stride in model.head_strides else ""
        share = off_grid_share(boxes, stride)
        line(f"Stride {stride}{where}: {share:.1%} of the boxes contain no cell centre.")
    line(f"{narrow:.1%} of the boxes are narrower than the head's finest stride, {finest}.")
    recommendation = recommend(sizes, model.image_px, model.head_strides, tile_px)
    line(_format_recommendation(recommendation, finest))


def _format_recommendation(recommendation: Recommendation, finest: int) -> str:
    """The recommendation in one sentence.

    Args:
        recommendation: coarsest sufficient stride and tile size.
        finest: finest stride of the present head.
    """
    if recommendation.max_stride is not None and recommendation.max_stride >= finest:
        coarser = recommendation.max_stride > finest
        note = f"; {recommendation.max_stride} is sufficient" if coarser else ""
        return f"The head's finest stride, {finest}, is fine enough for these boxes{note}."
    remedies = []
    if recommendation.max_stride is not None:
        remedies.append(
            f"a head with stride {recommendation.max_stride} (--tiny-head, detector.model.head_strides)"
        )
    if recommendation.tile_px is not None:
        remedies.append(f"tiles of {recommendation.tile_px} px or less (detector.model.tiles.px)")
    if not remedies:
        return "The boxes are too small in their images: neither a finer head nor tiles are sufficient."
    return f"The head's finest stride, {finest}, is too coarse for these boxes. Use {' or '.join(remedies)}."


def _data(
    workspace: Path | None,
    images: Path | None,
    annotations: Path | None,
    px: int | None,
    tile: int | None,
    request: LabelRequest,
) -> LabelledData:
    """The labelled data that the options select, with --px and --tile applied to its settings.

    Raises:
        SettingsError: the source is given twice or incompletely, or a setting is invalid.
    """
    from dsmoe_core.config import ModelConfig
    from dsmoe_core.data.label_source import SplitChoice
    from dsmoe_core.errors import SettingsError
    from pipelines.datasets.labelled_data import from_files, from_workspace
    from pipelines.settings.validation import validate_settings

    if annotations is not None and workspace is not None:
        raise SettingsError("both a workspace and --annotations are given", "Give only one of them.")
    if annotations is None and images is not None:
        raise SettingsError("--images is given without --annotations", "Give both, or a workspace.")
    if annotations is None:
        data = from_workspace(workspace or Path())
    else:
        folder = images or (annotations if annotations.is_dir() else annotations.parent)
        labels = read_labels(
            annotations, folder, request, split=SplitChoice.TRAIN, default=Unlabelled.NEGATIVE
        )
        show_accounts({"annotations": labels.account})
        data = from_files(labels, folder, ModelConfig(), annotations)
    raw = data.model.model_dump()
    if px is not None:
        raw["image_px"] = px
    if tile is not None:
        raw["tiles"] = {**(raw["tiles"] or {}), "px": tile}
    return data._replace(model=validate_settings(ModelConfig, raw, "the command line"))
