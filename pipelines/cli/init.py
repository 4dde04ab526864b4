"""Command `dsmoe init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsmoe_core.data.import_account import Unlabelled
from pipelines.cli.image_report import show_images
from pipelines.cli.input_size import with_input_size
from pipelines.cli.labels import (
    LabelRequest,
    PredictionsOption,
    StrictOption,
    UnlabelledOption,
    read_labels,
    show_accounts,
)
from pipelines.cli.options import (
    AblationOption,
    AblationRow,
    BudgetOption,
    DryRunOption,
    EncoderOption,
    EncoderTraining,
    IntensityMaxOption,
    RequiredImagesOption,
    Size,
    SizeOption,
    TinyHeadOption,
    output_folder,
    with_model_options,
)
from pipelines.cli.terminal import TerminalReporter, line
from pipelines.cli.weights import install_imagenet_lite

if TYPE_CHECKING:
    from dsmoe_core.data.annotation_set import AnnotationSet
    from dsmoe_core.data.image_folder import IngestResult
    from pipelines.settings.workspace import WorkspaceSettings
    from pipelines.workspace.workspace import Workspace

StartOption = Annotated[
    str | None,
    typer.Option(
        "--start",
        metavar="WHICH",
        help="Initial weights of the image encoder: imagenet-lite (default for nano), warm (made from "
        "synthetic images), scratch (default for base), mobile-sam (base only), or a file made by dsmoe "
        "pretrain.",
    ),
]
TextEncoderOption = Annotated[
    str,
    typer.Option(
        "--text-encoder",
        metavar="WHICH",
        help="Encoder of the class descriptions: minilm, or a language model (folder or ORG/NAME).",
    ),
]
TestOption = Annotated[
    Path | None,
    typer.Option(
        "--test", metavar="FILE|DIR", help="Labels of the fixed test set; its images are not sent out."
    ),
]


InitialPortOption = Annotated[
    int,
    typer.Option(
        "--port", min=1, max=65535, help="Port of Label Studio; the next free one is used if it is taken."
    ),
]


InputPxOption = Annotated[
    int | None,
    typer.Option(
        "--px",
        metavar="N",
        min=64,
        help="Side of the network's input in pixels, a multiple of 32; default: chosen from the images.",
    ),
]


def init(
    workspace: Annotated[
        Path, typer.Argument(metavar="WORKSPACE", help="Folder to create.", callback=output_folder)
    ],
    images: RequiredImagesOption,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", metavar="FILE|DIR", help="Labels of pool images: COCO, VOC or YOLO."),
    ] = None,
    test: TestOption = None,
    classes: Annotated[
        str | None,
        typer.Option("--classes", metavar="A,B,C", help="Class names; default: those of the labels."),
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Name of the project in Label Studio.")] = None,
    budget: BudgetOption = 40,
    size: SizeOption = Size.NANO,
    px: InputPxOption = None,
    start: StartOption = None,
    encoder: EncoderOption = None,
    ablation: AblationOption = None,
    tiny_head: TinyHeadOption = None,
    text_encoder: TextEncoderOption = "minilm",
    intensity_max: IntensityMaxOption = None,
    strict: StrictOption = False,
    unlabelled: UnlabelledOption = None,
    predictions_as_labels: PredictionsOption = False,
    port: InitialPortOption = 8080,
    dry_run: DryRunOption = False,
) -> None:
    """Create a workspace from a folder of images.

    Example: `dsmoe init boards --images photos --test val.json --classes short,spur,mousebite`
    """
    from dsmoe_core.config import ModelConfig
    from pipelines.workspace.ingest import Source, make_workspace

    request = LabelRequest(strict, unlabelled, predictions_as_labels)
    existing, test_labels = _labels(annotations, test, images, request)
    names = [name.strip() for name in (classes or "").split(",") if name.strip()]
    model = with_model_options(ModelConfig.of_size(size.value).model_dump(), ablation, tiny_head)
    labels = [s for s in (existing, test_labels) if s is not None]
    model = with_input_size(model, px, images, labels, choose_strides=tiny_head is None)
    initial = _start(start, size, ablation)
    detector = _detector(model, initial, text_encoder, encoder)
    settings = _settings(title or f"dsmoe {workspace.resolve().name}"[:50], budget, detector, port, dry_run)
    source = Source(
        images,
        annotations=existing,
        test=test_labels,
        classes=names,
        intensity_max=intensity_max,
        strict=strict,
    )
    if initial["start"] == "imagenet-lite" and not dry_run:
        install_imagenet_lite()
    with TerminalReporter() as progress:
        progress.step(0, "ingest")
        made, ingested = make_workspace(workspace, source, settings, progress=progress.advance)
    _report(made, ingested)


def _labels(
    annotations: Path | None, test: Path | None, images: Path, request: LabelRequest
) -> tuple[AnnotationSet | None, AnnotationSet | None]:
    """The labels of pool images, and those of the test set; None where no file is given."""
    from dsmoe_core.data.label_source import SplitChoice

    existing = of_test = None
    if annotations is not None:
        existing = read_labels(annotations, images, request, split=SplitChoice.ALL, without=test)
    if test is not None:
        negative = Unlabelled.NEGATIVE
        of_test = read_labels(test, images, request, split=SplitChoice.TEST, default=negative)
    return existing, of_test


def _detector(
    model: dict[str, Any], initial: dict[str, str], text_encoder: str, encoder: EncoderTraining | None
) -> dict[str, Any]:
    """Settings of the detector; the backbone is the one that the initial weights are for."""
    from pipelines.settings.detector import backbone_of_start, default_encoder

    packaged = "scratch" if "warm_start" in initial else initial["start"]
    return {
        "model": {**model, "backbone": backbone_of_start(initial["start"])},
        "text_encoder": _text_encoder(text_encoder),
        "training": {"encoder": default_encoder(packaged) if encoder is None else encoder.value},
        **initial,
    }


def _report(workspace: Workspace, ingested: IngestResult) -> None:
    """Print what was created, and which images and labels were left out."""
    from pipelines.workspace.import_log import read_imports

    with workspace:
        pool, test = len(workspace.images("pool")), len(workspace.images("test"))
    line(f"{workspace.path}: {pool} images in the pool, {test} in the test set")
    detector = workspace.settings.detector
    if detector.kind == "ds-moe" and detector.start == "warm" and detector.warm_start is None:
        line("the image encoder starts from the packaged weights, trained on synthetic images")
    if detector.kind == "ds-moe" and detector.start == "imagenet-lite":
        line("the image encoder starts from EfficientNet-Lite0's weights, trained on ImageNet")
    show_images(ingested)
    for record in read_imports(workspace.path)[:1]:
        show_accounts(record.accounts, record.file)


def _settings(
    title: str, budget: int, detector: dict[str, Any], port: int, dry_run: bool
) -> WorkspaceSettings:
    from pipelines.settings.validation import validate_settings
    from pipelines.settings.workspace import WorkspaceSettings

    kinds = ("stub", "stub") if dry_run else ("label-studio", "ds-moe")
    raw = {
        "title": title,
        "round": {"budget": budget},
        "studio": {"kind": kinds[0], "port": port},
        "detector": {"kind": kinds[1], **detector},
    }
    return validate_settings(WorkspaceSettings, raw, "the command line")


def _start(option: str | None, size: Size, ablation: AblationRow | None) -> dict[str, str]:
    """Settings of the image encoder's initial weights.

    Raises:
        SettingsError: the option is unknown, or the warm start is for another size.
        ModelError: the warm start is missing or damaged.
    """
    from pipelines.training.weights import default_start

    which = option or default_start(size.value, ablation)
    if which in ("scratch", "mobile-sam", "imagenet-lite"):
        return {"start": which}
    from dsmoe_core.errors import SettingsError
    from dsmoe_core.warm_start.checkpoint import read_card, shipped_path

    path = None if which == "warm" else Path(which).expanduser().resolve()
    if path is not None and path.suffix != ".safetensors":
        raise SettingsError(
            f"--start is {which}; expected warm, scratch, imagenet-lite, mobile-sam or a file made by dsmoe "
            "pretrain",
            "Correct --start.",
        )
    card = read_card(path or shipped_path(size.value))
    if card.size != size.value:
        raise SettingsError(
            f"{which} is for size {card.size}; expected {size.value}", f"Add --size {card.size}."
        )
    return {"start": "warm"} if path is None else {"start": "warm", "warm_start": str(path)}


def _text_encoder(which: str) -> dict[str, str]:
    """Settings of the text encoder that --text-encoder selects; a folder becomes an absolute path.

    Raises:
        SettingsError: it is a URL, or a path without a folder.
        PrerequisiteError: the folder lacks files of a model.
    """
    from dsmoe_core.errors import SettingsError
    from dsmoe_core.text_encoders.model_files import ModelFiles

    if which.startswith(("http://", "https://")):
        raise SettingsError(
            f"the text encoder at {which} needs a model name too",
            "Omit the option, and set both in dsmoe.yaml, under detector.text_encoder.",
        )
    if which == "minilm":
        return {"kind": "minilm"}
    folder = Path(which).expanduser()
    if folder.is_dir():
        return {"kind": "transformers", "model": str(ModelFiles(str(folder.resolve())).folder)}
    if folder.exists() or folder.is_symlink() or which.startswith(("/", "~", ".")):
        raise SettingsError(
            f"--text-encoder is {which}; expected minilm, the folder of a model, or ORG/NAME on the hub",
            "Correct it.",
        )
    return {"kind": "transformers", "model": which}
