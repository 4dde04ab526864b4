"""Simulated annotation of a round: corrects the images in the labelling server from known labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from annotate.studio.simulate import SimulatedAnnotator
from dsmoe_core.data.formats import read_annotations
from dsmoe_core.data.image_matching import match_images
from dsmoe_core.data.import_account import MAX_NAMED
from dsmoe_core.errors import DataError
from dsmoe_core.schema import LabelledImage
from pipelines.rounds.context import LoopContext
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.round_summary import RoundSummary
from pipelines.workspace.workspace import Workspace

Annotate = Callable[[LoopContext, RoundSummary], None]
"""Gets the open round annotated, and returns when it is."""


def load_truth(path: Path, workspace: Workspace) -> dict[str, LabelledImage]:
    """Read the true labels of the pool's images.

    Args:
        path: COCO file, VOC folder or YOLO folder.
        workspace: whose pool and class book the labels are matched with.

    Returns:
        Labelled image by image key; images of the pool that the file does not list are missing.

    Raises:
        FormatError, BoxError, ClassBookError: the file is malformed.
        DataError: the file lists no image of the pool.
    """
    known = read_annotations(path, path)
    match, book = match_images(known, workspace.images("pool")), workspace.class_book()
    if not match.labelled:
        raise DataError(
            f"{path} labels {len(known.images)} images, none of which is in the pool of {workspace.path}",
            "Give the file that labels its images.",
            details=[str(entry) for entry in match.account.entries[:MAX_NAMED]],
        )
    labelled = [relabel_image(p, book.resolve) for p in match.labelled]
    return {p.image.key: p for p in labelled}


def simulated_annotator(truth: Mapping[str, LabelledImage]) -> Annotate:
    """An annotator that corrects every image of a round to its true labels, through the labelling server.

    Args:
        truth: labelled image by image key, see ``load_truth``.
    """

    def annotate(context: LoopContext, row: RoundSummary) -> None:
        context.progress.step(row.round, "annotate")
        SimulatedAnnotator(context.studio, truth).run(context.project(), context.progress.advance)
        context.progress.finished(row.round, "annotate")

    return annotate
