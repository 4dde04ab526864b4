"""Creates a workspace from a folder of images and its annotations; an interrupted run can be repeated."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from annotate.studio.label_config import label_config
from dsmoe_core.atomic import disk_full_as_error
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.image_folder import IngestResult, ingest_folder
from dsmoe_core.data.image_matching import MatchResult, match_images
from dsmoe_core.data.import_account import MAX_NAMED, ImportAccount
from dsmoe_core.errors import DataError, SettingsError
from dsmoe_core.paths import check_output_folder
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Harvest, LabelledImage
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.dataset_version import DatasetVersion
from pipelines.workspace.import_log import record_import
from pipelines.workspace.journal import EPOCH
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.glossary import glossary_book


@dataclass(frozen=True, slots=True)
class Source:
    """The data that a workspace is created from.

    Attributes:
        images: folder of images.
        annotations: existing labels of images in the pool.
        test: the fixed test set; its images are never sent out.
        classes: class names; by default those that the annotations and the test set declare.
        pool: names of the images in the pool; by default all but the test set's.
        intensity_max: value of images with more than 8 bits that becomes white; None: chosen from the images.
        strict: refuse labels that are not taken completely.
    """

    images: Path
    annotations: AnnotationSet | None = None
    test: AnnotationSet | None = None
    classes: Sequence[str] = ()
    pool: Collection[str] | None = None
    intensity_max: int | None = None
    strict: bool = False


def make_workspace(
    path: Path,
    source: Source,
    settings: WorkspaceSettings,
    *,
    progress: CountCallback | None = None,
) -> tuple[Workspace, IngestResult]:
    """Create a workspace; all labels are checked before the first one is recorded.

    The accounts of the labels are recorded in the workspace, see ``import_log.py``.

    Args:
        path: folder of the workspace, new or empty.
        progress: called with (images read, images in total).

    Returns:
        The opened workspace, and the images that were taken in or put in quarantine.

    Raises:
        DataError: a folder or file is missing or wrong, no image can be used, no annotated image is in the
            folder, or an image of the test set is in the annotations too.
        ClassBookError: the annotations use a class that ``classes`` does not have.
        FormatError: labels are not taken completely, and that is required.
        WorkspaceError: the folder holds a workspace or something else.
        PrerequisiteError: the folder cannot be written, or the disk is full.
    """
    if not source.images.is_dir():
        raise DataError(f"folder {source.images} is not there; expected images in it", "Correct the path.")
    book = _initial_class_book(source)
    check_output_folder(path)
    workspace = Workspace.create(path, settings)
    with workspace.locked(), disk_full_as_error(workspace.path):
        ingest = ingest_folder(
            source.images,
            workspace.path / "images",
            max_pixels=settings.max_pixels,
            intensity_max=source.intensity_max,
            progress=progress,
        )
        if not ingest.images:
            raise DataError(
                f"no usable image in {source.images} ({len(ingest.quarantined)} in quarantine)",
                "Name a folder with images.",
            )
        workspace.save_quarantine({q.name: q.reason for q in ingest.quarantined})
        workspace.set_intensity_max(ingest.scale.intensity_max if ingest.scale else None)
        book.save(workspace.path / "classes.yaml")
        accounts = _record_images(workspace, source, ingest, book)
        workspace.class_books.publish_initial(book)
        record_import(workspace.path, "init", accounts, ingest.account())
        workspace.complete()
    return workspace, ingest


def match_labels(labels: AnnotationSet, ingest: IngestResult, folder: Path, book: ClassBook) -> MatchResult:
    """The labels of a folder's images, with the class book's names.

    Raises:
        ClassBookError: the class book does not have a class.
    """
    match = match_images(
        labels, ingest.images, duplicates=ingest.duplicates, unreadable=ingest.unreadable, folder=folder
    )
    return match._replace(labelled=tuple(relabel_image(p, book.resolve) for p in match.labelled))


def _initial_class_book(source: Source) -> ClassBook:
    """The class book of the source's classes, which must have every annotated class."""
    annotation_sets = [s for s in (source.annotations, source.test) if s is not None]
    names = list(source.classes) or list(dict.fromkeys(name for s in annotation_sets for name in s.classes))
    if not names:
        raise SettingsError("no classes are known", "Give them with --classes a,b,c or in annotations.")
    book = glossary_book(names)
    for annotation_set in annotation_sets:
        for label in sorted({a.label for image in annotation_set.images for a in image.annotations}):
            book.resolve(label)
    label_config(book.vocabulary())  # Label Studio cannot show every name
    return book


def _record_images(
    workspace: Workspace, source: Source, ingest: IngestResult, book: ClassBook
) -> dict[str, ImportAccount]:
    """Record roles and labels after checking all of them; those of an interrupted run are deleted.

    Returns:
        The accounts of the labels.
    """
    matches = {
        name: _matched(labels, source, ingest, book)
        for name, labels in (("annotations", source.annotations), ("test", source.test))
        if labels is not None
    }
    test = matches["test"].labelled if "test" in matches else ()
    labelled = matches["annotations"].labelled if "annotations" in matches else ()
    test_keys = {p.image.key for p in test}
    refuse_test_images([p.image.name for p in labelled if p.image.key in test_keys], "the other labels")
    pool = [
        p for p in ingest.images if p.key not in test_keys and (source.pool is None or p.name in source.pool)
    ]
    pool_keys = {p.key for p in pool}
    imported = [p for p in labelled if p.image.key in pool_keys]
    test_version = DatasetVersion.of(test, book.vocabulary())
    DatasetVersion.of(imported, book.vocabulary())  # checks the boxes
    journal = workspace.journal
    journal.reset_ingest()
    journal.add_images([p.image for p in test], "test", workspace.path)
    journal.add_images(pool, "pool", workspace.path)
    if source.test is not None:
        test_version.save(workspace.path / "datasets")
        journal.set_value("test_set", test_version.id)
    journal.record_harvests([imported_harvest(p) for p in imported], source="import")
    return {name: match.account for name, match in matches.items()}


def _matched(labels: AnnotationSet, source: Source, ingest: IngestResult, book: ClassBook) -> MatchResult:
    """The labels of the images.

    Raises:
        DataError: there are labels, and none of them belongs to an image.
        FormatError: labels are not taken completely, and that is required.
    """
    match = match_labels(labels, ingest, source.images, book)
    if source.strict:
        match.account.require_complete(f"the labels of {source.images}")
    if labels.images and not match.labelled:
        raise DataError(
            f"none of {len(labels.images)} annotated images can be used: {match.account.entries[-1]}",
            f"Give the folder that the labels' file names are relative to; this one is {source.images}.",
            details=[str(entry) for entry in match.account.entries[:MAX_NAMED]],
        )
    return match


def refuse_test_images(names: Sequence[str], labels: str) -> None:
    """Require that no image of the test set has labels for training.

    Args:
        names: of the images that have.
        labels: what labels them, for the message.

    Raises:
        DataError: there is one; lists them in its details.
    """
    if names:
        raise DataError(
            f"{len(names)} images of the test set are in {labels} too, such as {names[0]}; "
            "a model must not be trained on its test images",
            "Remove them from one of the two.",
            details=names,
        )


def imported_harvest(labelled: LabelledImage) -> Harvest:
    """A label that was imported; it is dated before every annotation, so that those replace it."""
    return Harvest(labelled.image.key, labelled.annotations, 0, EPOCH, False, {}, None, None)
