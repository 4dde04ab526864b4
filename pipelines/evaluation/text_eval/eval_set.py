"""The images that books are judged on: a workspace's test set, or any annotated ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dsmoe_core.errors import DataError, SettingsError
from dsmoe_core.schema import LabelledImage
from pipelines.progress import ProgressReporter
from pipelines.settings import MAX_PIXELS
from pipelines.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Annotated images that stay the same whatever book is read.

    Attributes:
        left_out: images that cannot be read: name, reason, boxes.
        notes: on how the annotations were read.
    """

    name: str
    truth: Sequence[LabelledImage]
    left_out: Sequence[dict[str, Any]] = ()
    notes: Sequence[str] = ()


@contextmanager
def open_evaluation_set(
    workspace: Workspace | None, annotations: Path | None, images: Path | None, progress: ProgressReporter
) -> Iterator[EvaluationSet]:
    """The annotations and images given, else the workspace's test set; readable within the block.

    Raises:
        SettingsError: one of the two is given without the other, or nothing to judge on.
        DataError: they cannot be used, or hold no true box.
    """
    if (annotations is None) != (images is None):
        raise SettingsError("--annotations and --images go together", "Give both, or neither.")
    if annotations is None or images is None:
        yield _with_boxes(_test_set(workspace))
        return
    from dsmoe_core.data.external_images import read_external_images
    from dsmoe_core.data.formats import read_annotations

    known = read_annotations(annotations, images)
    most = workspace.settings.max_pixels if workspace else MAX_PIXELS
    with TemporaryDirectory(prefix="dsmoe-") as scratch:
        progress.status("reading images")
        taken = read_external_images(known, images, Path(scratch), max_pixels=most, progress=progress.advance)
        left_out = [one._asdict() for one in taken.skipped]
        yield _with_boxes(EvaluationSet(annotations.resolve().name, taken.labelled, left_out, known.notes))


def _test_set(workspace: Workspace | None) -> EvaluationSet:
    truth = workspace.test_set() if workspace else []
    if workspace is None or not truth:
        raise SettingsError(
            f"{workspace.path} has no test set" if workspace else "there is neither workspace nor test set",
            "Give annotated images with --annotations and --images.",
        )
    return EvaluationSet(f"test set of {workspace.path.name}", truth)


def _with_boxes(found: EvaluationSet) -> EvaluationSet:
    if not any(one.annotations for one in found.truth):
        raise DataError(
            f"{found.name} has no true box, so nothing can be judged on it", "Give annotated images."
        )
    return found
