"""dsmoe init"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import (
    AblationOption,
    AblationRow,
    Size,
    SizeOption,
    StudioPortOption,
    TinyHeadOption,
    with_model_options,
)
from pipelines.cli.terminal import TerminalReporter, line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dsmoe_core.data.annotation_set import AnnotationSet
    from dsmoe_core.data.image_folder import IngestResult
    from pipelines.settings import WorkspaceSettings
    from pipelines.workspace.workspace import Workspace


def init(
    workspace: Annotated[Path, typer.Argument(metavar="WORKSPACE", help="Folder to make.")],
    images: Annotated[Path, typer.Option("--images", metavar="DIR", help="Folder of images.")],
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations", metavar="FILE|DIR", help="Labels that exist: COCO file, VOC or YOLO folder."
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option("--test", metavar="FILE|DIR", help="Labels of the fixed test set; it is never queried."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="A,B,C", help="The classes, if no labels exist.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Name of the project in Label Studio.")] = None,
    budget: Annotated[int, typer.Option("--budget", min=1, help="Images in a round.")] = 40,
    size: SizeOption = Size.NANO,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            metavar="WHICH",
            help="First weights: warm (the default of nano), scratch (elsewhere), mobile-sam (base), "
            "or a file of dsmoe pretrain.",
        ),
    ] = None,
    ablation: AblationOption = None,
    tiny_head: TinyHeadOption = None,
    text_encoder: Annotated[
        str,
        typer.Option(
            "--text-encoder", metavar="WHICH", help="minilm, or a language model: a folder or ORG/NAME."
        ),
    ] = "minilm",
    port: StudioPortOption = 8080,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stand-ins for Label Studio and the detector.")
    ] = False,
) -> None:
    """Make a workspace from a folder of images.

    Example: `dsmoe init boards --images photos --test val.json --classes short,spur,mousebite`
    """
    from dsmoe_core.config import ModelConfig
    from dsmoe_core.data.formats import read_annotations
    from pipelines.workspace.ingest import Source, make_workspace

    known, judged = (read_annotations(p, images) if p is not None else None for p in (annotations, test))
    names = [name.strip() for name in (classes or "").split(",") if name.strip()]
    model = with_model_options(ModelConfig.of_size(size.value).model_dump(), ablation, tiny_head)
    detector = {"model": model, "text_encoder": _text(text_encoder), **_first_weights(start, size, ablation)}
    settings = _settings(title or f"dsmoe {workspace.resolve().name}"[:50], budget, detector, port, dry_run)
    source = Source(images, annotations=known, test=judged, classes=names)
    with TerminalReporter() as progress:
        progress.step(0, "ingest")
        made, taken = make_workspace(workspace, source, settings, progress=progress.advance)
    _tell(made, taken, {"--annotations": known, "--test": judged})


def _tell(made: Workspace, taken: IngestResult, given: Mapping[str, AnnotationSet | None]) -> None:
    """What was made, and what was left out."""
    with made:
        pool, held = len(made.images("pool")), len(made.images("test"))
    line(f"{made.path}: {pool} images in the pool, {held} in the test set")
    detector = made.settings.detector
    if detector.kind == "ds-moe" and detector.start == "warm" and detector.warm_start is None:
        line("the image encoder starts from weights that come with dsmoe, learned from drawn images")
    if taken.quarantined:
        first = taken.quarantined[0]
        line(f"{len(taken.quarantined)} left out, see quarantine.json; {first.name}: {first.reason}")
    for option, labels in given.items():
        if labels is not None and (lost := labels.match(taken.images).missing):
            of = f"{len(lost)} of {len(labels.images)} images of {option}"
            line(f"{of} are not there, such as {lost[0]}")


def _settings(
    title: str, budget: int, detector: dict[str, Any], port: int, dry_run: bool
) -> WorkspaceSettings:
    from pipelines.settings import WorkspaceSettings, validate_settings

    kinds = ("stub", "stub") if dry_run else ("label-studio", "ds-moe")
    raw = {
        "title": title,
        "round": {"budget": budget},
        "studio": {"kind": kinds[0], "port": port},
        "detector": {"kind": kinds[1], **detector},
    }
    return validate_settings(WorkspaceSettings, raw, "the command line")


def _best_start(size: Size, row: AblationRow | None) -> str:
    """A warm start, where one comes with dsmoe and the row of the ablation has the encoder that it is of."""
    from dsmoe_core.config import ModelConfig
    from dsmoe_core.warm_start.checkpoint import shipped_path

    fits = row is None or ModelConfig(ablation=row.value).mobile_sam
    return "warm" if fits and shipped_path(size.value).is_file() else "scratch"


def _first_weights(given: str | None, size: Size, row: AblationRow | None) -> dict[str, str]:
    """Settings of the image encoder's first weights; a warm start is looked at now, not a round later."""
    which = given or _best_start(size, row)
    if which in ("scratch", "mobile-sam"):
        return {"start": which}
    from dsmoe_core.errors import SettingsError
    from dsmoe_core.warm_start.checkpoint import read_card, shipped_path

    own = None if which == "warm" else Path(which).expanduser().resolve()
    if own is not None and own.suffix != ".safetensors":
        raise SettingsError(
            f"--start is {which}; expected scratch, mobile-sam, warm or a file of dsmoe pretrain",
            "Give one of these.",
        )
    card = read_card(own or shipped_path(size.value))
    if card.size != size.value:
        raise SettingsError(
            f"{which} is for size {card.size}; expected {size.value}", f"Give --size {card.size} too."
        )
    return {"start": "warm"} if own is None else {"start": "warm", "warm_start": str(own)}


def _text(which: str) -> dict[str, str]:
    """Settings of a text encoder from one word: a folder is kept by its whole path."""
    from dsmoe_core.errors import SettingsError

    if which.startswith(("http://", "https://")):
        raise SettingsError(
            f"the text encoder at {which} needs the name of its model too",
            "Leave the option out and write both into dsmoe.yaml, under detector.text_encoder.",
        )
    if which == "minilm":
        return {"kind": "minilm"}
    folder = Path(which).expanduser()
    return {"kind": "transformers", "model": str(folder.resolve()) if folder.is_dir() else which}
