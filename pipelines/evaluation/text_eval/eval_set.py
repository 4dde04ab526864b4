"""The images that class books are evaluated on: a workspace's test set, or other annotated images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dsmoe_core.data.import_account import ImportAccount, Unlabelled
from dsmoe_core.data.label_source import ReadOptions, SplitChoice
from dsmoe_core.errors import DataError, SettingsError
from dsmoe_core.schema import LabelledImage
from pipelines.progress import ProgressReporter
from pipelines.settings.workspace import MAX_PIXELS
from pipelines.workspace.workspace import Workspace

TEST_OPTIONS = ReadOptions(split=SplitChoice.TEST)


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Annotated images for the evaluation of class books.

    Attributes:
        name: for the report.
        truth: the images with their annotations.
        left_out: name, reason and number of boxes of each image that cannot be read.
        notes: about the import of the annotations.
        account: of the annotations; None for a workspace's test set.
    """

    name: str
    truth: Sequence[LabelledImage]
    left_out: Sequence[dict[str, Any]] = ()
    notes: Sequence[str] = ()
    account: ImportAccount | None = None


@contextmanager
def open_evaluation_set(
    workspace: Workspace | None,
    annotations: Path | None,
    images: Path | None,
    progress: ProgressReporter,
    *,
    options: ReadOptions = TEST_OPTIONS,
    unlabelled: Unlabelled = Unlabelled.NEGATIVE,
) -> Iterator[EvaluationSet]:
    """The given annotated images, or the workspace's test set; readable inside the ``with`` block only.

    Args:
        options: how the annotations are read.
        unlabelled: how annotated images without a box count.

    Raises:
        SettingsError: only one of annotations and images is given, or there is no test set.
        DataError: the images cannot be used, or have no ground-truth box.
    """
    if (annotations is None) != (images is None):
        raise SettingsError("only one of --annotations and --images is given", "Give both, or neither.")
    if annotations is None or images is None:
        yield _with_boxes(_test_set(workspace))
        return
    from dsmoe_core.data.external_images import read_external_images
    from dsmoe_core.data.formats import read_annotations

    parsed = read_annotations(annotations, images, options).counting_unlabelled(unlabelled)
    max_pixels = workspace.settings.max_pixels if workspace else MAX_PIXELS
    with TemporaryDirectory(prefix="dsmoe-") as scratch:
        progress.status("reading images")
        external = read_external_images(
            parsed,
            images,
            Path(scratch),
            max_pixels=max_pixels,
            intensity_max=workspace.intensity_max() if workspace else None,
            progress=progress.advance,
        )
        if options.strict:
            external.account.require_complete(str(annotations))
        left_out = [image._asdict() for image in external.skipped]
        name, account = annotations.resolve().name, external.account
        yield _with_boxes(EvaluationSet(name, external.labelled, left_out, account.notes, account))


def _test_set(workspace: Workspace | None) -> EvaluationSet:
    truth = workspace.test_set() if workspace else []
    if workspace is None or not truth:
        raise SettingsError(
            f"{workspace.path} has no test set" if workspace else "there is neither workspace nor test set",
            "Give annotated images with --annotations and --images.",
        )
    return EvaluationSet(f"test set of {workspace.path.name}", truth)


def _with_boxes(data: EvaluationSet) -> EvaluationSet:
    if not any(labelled.annotations for labelled in data.truth):
        raise DataError(
            f"{data.name} has no ground-truth box, so nothing can be evaluated on it",
            "Give annotated images.",
        )
    return data
