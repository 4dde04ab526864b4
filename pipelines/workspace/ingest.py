"""From a folder of images, and what is known of them, to a workspace. Interrupted, it may be run again."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dsmoe_core.atomic import atomic_write, disk_full_as_error
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.image_folder import IngestResult, ingest_folder
from dsmoe_core.errors import DataError, SettingsError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Annotation, Harvest, ImageRecord, LabelledImage
from pipelines.settings import WorkspaceSettings
from pipelines.workspace.dataset_version import DatasetVersion
from pipelines.workspace.journal import EPOCH
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.glossary import glossary_book


@dataclass(frozen=True, slots=True)
class Source:
    """What a workspace is made from.

    Attributes:
        images: folder of images.
        annotations: labels that exist already, of images in the pool.
        test: the fixed test set; its images are never queried.
        classes: the classes; by default those the annotations and the test set declare.
        pool: names of the images that may be queried; by default all but the test set's.
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
    """Make a workspace; every file is checked before the first image is taken in.

    Raises:
        DataError: a folder or file is missing or wrong, a box is outside its image, no image is usable,
            or annotations are of other images only.
        ClassBookError: the annotations use a class that ``classes`` lacks.
        WorkspaceError: there is one already.
    """
    if not source.images.is_dir():
        raise DataError(f"folder {source.images} is not there; expected images in it", "Correct the path.")
    book = _class_book(source)
    workspace = Workspace.create(path, settings)
    with workspace.locked(), disk_full_as_error(workspace.path):
        taken = ingest_folder(
            source.images, workspace.path / "images", max_pixels=settings.max_pixels, progress=progress
        )
        if not taken.images:
            raise DataError(
                f"no usable image in {source.images} ({len(taken.quarantined)} in quarantine)",
                "Name a folder with images.",
            )
        quarantine = [{"name": q.name, "reason": q.reason} for q in taken.quarantined]
        atomic_write(workspace.path / "quarantine.json", json.dumps(quarantine, indent=1) + "\n")
        book.save(workspace.path / "classes.yaml")
        _take_in(workspace, source, taken.images, book)
        workspace.class_books.publish_initial(book)
        workspace.complete()
    return workspace, taken


def matched(known: AnnotationSet, images: Sequence[ImageRecord], book: ClassBook) -> list[LabelledImage]:
    """Annotations brought together with images, under the class book's own names.

    Raises:
        FormatError: an image has another size than the annotations say.
        ClassBookError: the class book lacks a class.
    """
    return [
        LabelledImage(p.image, tuple(Annotation(a.box, book.resolve(a.label)) for a in p.annotations))
        for p in known.match(images).labelled
    ]


def _class_book(source: Source) -> ClassBook:
    """The class book of these classes, which must cover every label in use."""
    known = [s for s in (source.annotations, source.test) if s is not None]
    names = list(source.classes) or list(dict.fromkeys(name for s in known for name in s.classes))
    if not names:
        raise SettingsError("no classes are known", "Give them with --classes a,b,c or in annotations.")
    book = glossary_book(names)
    for annotated in known:
        for label in sorted({a.label for p in annotated.images for a in p.annotations}):
            book.resolve(label)
    return book


def _take_in(workspace: Workspace, source: Source, images: Sequence[ImageRecord], book: ClassBook) -> None:
    """Record roles and labels, alone: once all are checked, and without those of a run that was killed."""
    test, known = (_labelled(a, source.images, images, book) for a in (source.test, source.annotations))
    held = {p.image.key for p in test}
    pool = [p for p in images if p.key not in held and (source.pool is None or p.name in source.pool)]
    queried = {p.key for p in pool}
    imported = [p for p in known if p.image.key in queried]
    version = DatasetVersion.of(test, book.vocabulary())
    DatasetVersion.of(imported, book.vocabulary())  # the same checks as for any other labels
    journal = workspace.journal
    journal.reset_ingest()
    journal.add_images([p.image for p in test], "test", workspace.path)
    journal.add_images(pool, "pool", workspace.path)
    if source.test is not None:
        version.save(workspace.path / "datasets")
        journal.set_fact("test_set", version.id)
    journal.record_harvests([_imported(p, EPOCH) for p in imported], source="import")


def _labelled(
    known: AnnotationSet | None, folder: Path, images: Sequence[ImageRecord], book: ClassBook
) -> list[LabelledImage]:
    """Annotations with their images; without this check a test set of other names would judge nothing.

    Raises:
        DataError: not one of the annotated names is that of an image.
    """
    found = [] if known is None else matched(known, images, book)
    if known is not None and known.images and not found:
        raise DataError(
            f"none of {len(known.images)} annotated images, such as {known.images[0].name}, "
            f"is a usable one of {folder}",
            "Give the folder that the annotations' file names are relative to.",
        )
    return found


def _imported(labelled: LabelledImage, moment: datetime) -> Harvest:
    """A label that came with the data: older than whatever an annotator says."""
    return Harvest(labelled.image.key, labelled.annotations, 0, moment, False, {}, None, None)
