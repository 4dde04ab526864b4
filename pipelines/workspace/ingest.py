"""From a folder of pictures, and what is known of them, to a workspace. Interrupted, it may be run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dsmoe_core.atomic import disk_full_is_an_error, write_whole
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.image_folder import Ingest, ingest_folder
from dsmoe_core.errors import DataError, SettingsError
from dsmoe_core.schema import Annotation, Harvest, LabelledPicture, Picture
from pipelines.settings import WorkspaceSettings
from pipelines.workspace.dataset_version import DatasetVersion
from pipelines.workspace.journal import EPOCH
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook


@dataclass(frozen=True, slots=True)
class Source:
    """What a workspace is made from.

    Attributes:
        images: folder of pictures.
        annotations: labels that exist already, of pictures in the pool.
        test: the fixed test set; its pictures are never queried.
        classes: the classes; by default those the annotations and the test set declare.
        pool: names of the pictures that may be queried; by default all but the test set's.
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
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Workspace, Ingest]:
    """Make a workspace; every file is checked before the first picture is taken in.

    Raises:
        DataError: a folder or file is missing or wrong, a box is outside its picture, no picture is usable,
            or annotations are of other pictures only.
        ClassBookError: the annotations use a class that ``classes`` lacks.
        WorkspaceError: there is one already.
    """
    if not source.images.is_dir():
        raise DataError(f"folder {source.images} is not there; expected pictures in it", "Correct the path.")
    book = _class_book(source)
    workspace = Workspace.create(path, settings)
    with workspace.locked(), disk_full_is_an_error(workspace.path):
        taken = ingest_folder(
            source.images, workspace.path / "pictures", max_pixels=settings.max_pixels, progress=progress
        )
        if not taken.pictures:
            raise DataError(
                f"no usable picture in {source.images} ({len(taken.quarantined)} in quarantine)",
                "Name a folder with pictures.",
            )
        quarantine = [{"name": q.name, "reason": q.reason} for q in taken.quarantined]
        write_whole(workspace.path / "quarantine.json", json.dumps(quarantine, indent=1) + "\n")
        book.save(workspace.path / "classes.yaml")
        _take_in(workspace, source, taken.pictures, book)
        workspace.class_books.begin_with(book)
        workspace.complete()
    return workspace, taken


def matched(known: AnnotationSet, pictures: Sequence[Picture], book: ClassBook) -> list[LabelledPicture]:
    """Annotations brought together with pictures, under the class book's own names.

    Raises:
        FormatError: a picture has another size than the annotations say.
        ClassBookError: the class book lacks a class.
    """
    return [
        LabelledPicture(p.picture, tuple(Annotation(a.box, book.resolve(a.label)) for a in p.annotations))
        for p in known.match(pictures).labelled
    ]


def _class_book(source: Source) -> ClassBook:
    """The class book of these classes, which must cover every label in use."""
    known = [s for s in (source.annotations, source.test) if s is not None]
    names = list(source.classes) or list(dict.fromkeys(name for s in known for name in s.classes))
    if not names:
        raise SettingsError("no classes are known", "Give them with --classes a,b,c or in annotations.")
    book = ClassBook.from_glossary(names)
    for annotated in known:
        for label in sorted({a.label for p in annotated.pictures for a in p.annotations}):
            book.resolve(label)
    return book


def _take_in(workspace: Workspace, source: Source, pictures: Sequence[Picture], book: ClassBook) -> None:
    """Record roles and labels, alone: once all are checked, and without those of a run that was killed."""
    test, known = (_labelled(a, source.images, pictures, book) for a in (source.test, source.annotations))
    held = {p.picture.key for p in test}
    pool = [p for p in pictures if p.key not in held and (source.pool is None or p.name in source.pool)]
    queried = {p.key for p in pool}
    imported = [p for p in known if p.picture.key in queried]
    version = DatasetVersion.of(test, book.vocabulary())
    DatasetVersion.of(imported, book.vocabulary())  # the same checks as for any other labels
    journal = workspace.journal
    journal.begin_anew()
    journal.add_pictures([p.picture for p in test], "test", workspace.path)
    journal.add_pictures(pool, "pool", workspace.path)
    if source.test is not None:
        version.save(workspace.path / "datasets")
        journal.set_fact("test_set", version.id)
    journal.record([_imported(p, EPOCH) for p in imported], source="import")


def _labelled(
    known: AnnotationSet | None, images: Path, pictures: Sequence[Picture], book: ClassBook
) -> list[LabelledPicture]:
    """Annotations with their pictures; without this check a test set of other names would judge nothing.

    Raises:
        DataError: not one of the annotated names is that of a picture.
    """
    found = [] if known is None else matched(known, pictures, book)
    if known is not None and known.pictures and not found:
        raise DataError(
            f"none of {len(known.pictures)} annotated pictures, such as {known.pictures[0].name}, "
            f"is a usable one of {images}",
            "Give the folder that the annotations' file names are relative to.",
        )
    return found


def _imported(labelled: LabelledPicture, moment: datetime) -> Harvest:
    """A label that came with the data: older than whatever an annotator says."""
    return Harvest(labelled.picture.key, labelled.annotations, 0, moment, False, {}, None, None)
