"""dsmoe data synthesize, preview, anchors"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import PxOption, SyntheticKindChoice
from pipelines.cli.terminal import TerminalReporter, console, line

if TYPE_CHECKING:
    from dsmoe_core.data.anchors import Recommendation
    from pipelines.datasets.labelled_data import LabelledData

app = typer.Typer(help="Draw labelled data, and look at data as it is trained on.", no_args_is_help=True)

WorkspaceArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="WORKSPACE", help="What was labelled in this workspace; default: the present folder."
    ),
]
ImagesOption = Annotated[Path | None, typer.Option("--images", metavar="DIR", help="Folder of images.")]
AnnotationsOption = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        metavar="FILE|DIR",
        help="Instead of a workspace: COCO file, VOC or YOLO folder. Settings are the preset's.",
    ),
]
TileOption = Annotated[
    int | None,
    typer.Option("--tile", min=64, help="Cut into tiles of so many pixels; default: the settings'."),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn at random.")]


@app.command("synthesize")
def synthesize(
    kind: Annotated[SyntheticKindChoice, typer.Argument(metavar="KIND", help="pcb, aluminium or glass.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to make.")],
    train: Annotated[int, typer.Option("--train", min=1, help="Images in train.json.")] = 400,
    val: Annotated[int, typer.Option("--val", min=1, help="Images in val.json.")] = 100,
    px: Annotated[int, typer.Option("--px", min=64, max=4096, help="Side of the images.")] = 320,
    seed: SeedOption = 42,
) -> None:
    """Draw images with known defects: boards, aluminium lids and sheets, or bottoms of glass bottles.

    Example: `dsmoe data synthesize glass --out bottles --train 400 --val 100`
    """
    from dsmoe_core.atomic import disk_full_as_error, refuse_unknown_files
    from dsmoe_core.data.synthetic import SYNTHETIC_SET_FILES, write_synthetic_set

    refuse_unknown_files(out, SYNTHETIC_SET_FILES)
    with TerminalReporter() as progress, disk_full_as_error(out):
        progress.status(f"drawing {kind.value}")
        write_synthetic_set(out, kind.value, train, val, seed=seed, px=px, progress=progress.advance)
    line(f"{out}: {train} images in train.json, {val} in val.json")


@app.command("preview")
def preview(
    out: Annotated[Path, typer.Option("--out", metavar="SHEET.png", help="The contact sheet to write.")],
    workspace: WorkspaceArgument = None,
    images: ImagesOption = None,
    annotations: AnnotationsOption = None,
    count: Annotated[int, typer.Option("--count", min=1, max=200, help="Images on the sheet.")] = 12,
    each: Annotated[
        bool, typer.Option("--each", help="A row for each augmentation alone, off or on in the settings.")
    ] = False,
    px: PxOption = None,
    tile: TileOption = None,
    seed: SeedOption = 42,
) -> None:
    """Draw images as training is shown them, with their boxes and what was done to them.

    Example: `dsmoe data preview boards --out sheet.png --each`
    """
    from dsmoe_core.atomic import disk_full_as_error
    from dsmoe_core.data.letterbox import LetterboxReader
    from dsmoe_core.errors import SettingsError
    from dsmoe_core.tiling import training_views
    from pipelines.datasets.contact_sheet import augmentation_rows, render_sheet, training_rows

    if out.suffix.lower() != ".png":
        raise SettingsError(f"--out is {out}; expected a name that ends in .png", "Name a PNG file.")
    data = _data(workspace, images, annotations, px, tile)
    columns = min(count, 6) if each else min(count, math.ceil(math.sqrt(1.5 * count)))
    with tempfile.TemporaryDirectory() as scratch:
        drawn = data.sample(columns if each else count, seed, Path(scratch))
        views = training_views(drawn.labelled, data.model.tiles)
        training = data.training.model_copy(update={"seed": seed})
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
    for one in drawn.skipped:
        line(f"{one.name} is left out: {one.reason}")
    line(f"{out} is written")


@app.command("anchors")
def anchors(
    workspace: WorkspaceArgument = None,
    images: ImagesOption = None,
    annotations: AnnotationsOption = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="Sizes to find.")] = 9,
    px: PxOption = None,
    tile: TileOption = None,
    seed: SeedOption = 42,
) -> None:
    """Cluster the sizes of boxes (K-means under 1 - IoU), and say what they ask of head, side and tiles.

    Example: `dsmoe data anchors boards -k 9`
    """
    from rich.table import Table

    from dsmoe_core.config import STRIDES
    from dsmoe_core.data.anchors import BoxSizes, kmeans, off_grid_share, recommend

    data = _data(workspace, images, annotations, px, tile)
    model = data.model
    sizes = BoxSizes.of((p.image.width, p.image.height, p.annotations) for p in data.images)
    tile_px = model.tiles.px if model.tiles else None
    shown = sizes.at_network_input(model.image_px, tile_px)
    found = kmeans(shown, k, seed)
    finest = min(model.head_strides)
    narrow = float((shown.min(1) < finest).mean())
    table = Table("width", "height", "boxes", f"cells of stride {finest} in it")
    for (width, height), share in zip(found.sizes, found.shares, strict=True):
        table.add_row(f"{width:.1f}", f"{height:.1f}", f"{share:.0%}", f"{width * height / finest**2:.1f}")
    console.print(table)
    seen = f"tiles of {tile_px} px" if tile_px else "whole images"
    line(f"{len(shown)} boxes as the network sees them: {seen} at a side of {model.image_px} px.")
    line(f"Mean best IoU of {len(found.sizes)} sizes: {found.mean_best_iou:.3f}.")
    for stride in STRIDES:
        where = " (in the head)" if stride in model.head_strides else ""
        line(
            f"Stride {stride}{where}: {off_grid_share(shown, stride):.1%} of the boxes hold no cell's centre."
        )
    line(f"{narrow:.1%} of the boxes are narrower than the head's finest stride, {finest}.")
    line(_advice(recommend(sizes, model.image_px, model.head_strides, tile_px), finest))


def _advice(found: Recommendation, finest: int) -> str:
    if found.max_stride is not None and found.max_stride >= finest:
        spare = f"; {found.max_stride} would do" if found.max_stride > finest else ""
        return f"The head's finest stride, {finest}, is fine enough for these boxes{spare}."
    ways = []
    if found.max_stride is not None:
        ways.append(f"a head with stride {found.max_stride} (--tiny-head, detector.model.head_strides)")
    if found.tile_px is not None:
        ways.append(f"tiles of {found.tile_px} px or less (detector.model.tiles.px)")
    if not ways:
        return "Neither a finer head nor tiles are enough: the boxes are too small in their images."
    return f"The head's finest stride, {finest}, is too coarse for these boxes. Take {' or '.join(ways)}."


def _data(
    workspace: Path | None, images: Path | None, annotations: Path | None, px: int | None, tile: int | None
) -> LabelledData:
    """The data that is asked for, with the settings changed as asked for.

    Raises:
        SettingsError: both or half of a source are given, or a setting is wrong.
    """
    from dsmoe_core.config import ModelConfig
    from dsmoe_core.errors import SettingsError
    from pipelines.datasets.labelled_data import from_files, from_workspace
    from pipelines.settings import validate_settings

    if annotations is not None and workspace is not None:
        raise SettingsError("both a workspace and --annotations are given", "Give one of the two.")
    if annotations is None and images is not None:
        raise SettingsError("--images is given without --annotations", "Give both, or a workspace.")
    if annotations is None:
        data = from_workspace(workspace or Path())
    else:
        data = from_files(annotations, images or annotations.parent, ModelConfig())
    raw = data.model.model_dump()
    if px is not None:
        raw["image_px"] = px
    if tile is not None:
        raw["tiles"] = {**(raw["tiles"] or {}), "px": tile}
    return data._replace(model=validate_settings(ModelConfig, raw, "the command line"))
