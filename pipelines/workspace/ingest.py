"""Creates a workspace from a folder of images and its annotations; an interrupted run can be repeated."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsmoe_core.atomic import atomic_write, disk_full_as_error
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.image_folder import IngestResult, ingest_folder
from dsmoe_core.errors import DataError, SettingsError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Harvest, ImageRecord, LabelledImage
from pipelines.settings import WorkspaceSettings
from pipelines.workspace.dataset_version import DatasetVersion
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
    """

    images: Path
    annotations: AnnotationSet | None = None
    test: AnnotationSet | None = None
    classes: Sequence[str] = ()
    pool: Collection[str] | None = None


def make_workspace(
    path: Path,
    source: Source,
    settings: WorkspaceSettings,
    *,
    progress: CountCallback | None = None,
) -> tuple[Workspace, IngestResult]:
    """Create a workspace; all labels are checked before the first one is recorded.

    Args:
        path: folder of the workspace, new or empty.
        progress: called with (images read, images in total).

    Returns:
        The opened workspace, and the images that were taken in or put in quarantine.

    Raises:
        DataError: a folder or file is missing or wrong, a box is outside its image, no image can be used, or
            no annotated image is in the folder.
        ClassBookError: the annotations use a class that ``classes`` does not have.
        WorkspaceError: the folder holds a workspace or something else.
    """
    if not source.images.is_dir():
        raise DataError(f"folder {source.images} is not there; expected images in it", "Correct the path.")
    book = _initial_class_book(source)
    workspace = Workspace.create(path, settings)
    with workspace.locked(), disk_full_as_error(workspace.path):
        ingest = ingest_folder(
            source.images, workspace.path / "images", max_pixels=settings.max_pixels, progress=progress
        )
        if not ingest.images:
            raise DataError(
                f"no usable image in {source.images} ({len(ingest.quarantined)} in quarantine)",
                "Name a folder with images.",
            )
        quarantine = [{"name": q.name, "reason": q.reason} for q in ingest.quarantined]
        atomic_write(workspace.path / "quarantine.json", json.dumps(quarantine, indent=1) + "\n")
        book.save(workspace.path / "classes.yaml")
        _record_images(workspace, source, ingest.images, book)
        workspace.class_books.publish_initial(book)
        workspace.complete()
    return workspace, ingest


def match_annotations(
    annotations: AnnotationSet, images: Sequence[ImageRecord], book: ClassBook
) -> list[LabelledImage]:
    """The annotations of these images, with the class book's names.

    Raises:
        FormatError: an image has another size than its annotations say.
        ClassBookError: the class book does not have a class.
    """
    return [relabel_image(labelled, book.resolve) for labelled in annotations.match(images).labelled]


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
    return book


def _record_images(
    workspace: Workspace, source: Source, images: Sequence[ImageRecord], book: ClassBook
) -> None:
    """Record roles and labels after checking all of them; those of an interrupted run are deleted."""
    test = _labelled_images(source.test, source.images, images, book)
    labelled = _labelled_images(source.annotations, source.images, images, book)
    test_keys = {p.image.key for p in test}
    pool = [p for p in images if p.key not in test_keys and (source.pool is None or p.name in source.pool)]
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
    journal.record_harvests([_imported_harvest(p) for p in imported], source="import")


def _labelled_images(
    annotations: AnnotationSet | None, folder: Path, images: Sequence[ImageRecord], book: ClassBook
) -> list[LabelledImage]:
    """The images with their annotations.

    Raises:
        DataError: there are annotations, and none of them belongs to an image.
    """
    if annotations is None:
        return []
    labelled = match_annotations(annotations, images, book)
    if annotations.images and not labelled:
        raise DataError(
            f"none of {len(annotations.images)} annotated images, such as {annotations.images[0].name}, "
            f"is a usable image of {folder}",
            "Give the folder that the annotations' file names are relative to.",
        )
    return labelled


def _imported_harvest(labelled: LabelledImage) -> Harvest:
    """A label that was given to init; it is dated before every annotation, so that those replace it."""
    return Harvest(labelled.image.key, labelled.annotations, 0, EPOCH, False, {}, None, None)
