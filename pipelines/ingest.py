"""From a folder of pictures, and what is known of them, to a workspace. Interrupted, it may be run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dsmoe_core.atomic import disk_full_is_an_error, write_whole
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.pictures import Ingest, ingest_folder
from dsmoe_core.errors import DataError, SettingsError
from dsmoe_core.schema import Annotation, Harvest, LabelledPicture, Picture
from pipelines.dataset_version import DatasetVersion
from pipelines.journal import EPOCH
from pipelines.settings import WorkspaceSettings
from pipelines.workspace import Workspace
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
        DataError: a folder or file is missing or wrong, a box is outside its picture, no picture is usable.
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
        _take_pictures(workspace, source, taken)
        _take_labels(workspace, source, book)
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


def _take_pictures(workspace: Workspace, source: Source, taken: Ingest) -> None:
    """Record the roles: the test set first, since a picture keeps the role it got first."""
    test = {p.name for p in source.test.pictures} if source.test else set()
    pool = source.pool
    workspace.journal.add_pictures((p for p in taken.pictures if p.name in test), "test", workspace.path)
    workspace.journal.add_pictures(
        (p for p in taken.pictures if p.name not in test and (pool is None or p.name in pool)),
        "pool",
        workspace.path,
    )


def _take_labels(workspace: Workspace, source: Source, book: ClassBook) -> None:
    """Record the test set as a dataset version, and labels of the pool as imported annotations."""
    if source.test is not None:
        labelled = matched(source.test, workspace.pictures("test"), book)
        version = DatasetVersion.of(labelled, book.vocabulary())
        version.save(workspace.path / "datasets")
        workspace.journal.set_fact("test_set", version.id)
    if source.annotations is not None:
        labelled = matched(source.annotations, workspace.pictures("pool"), book)
        DatasetVersion.of(labelled, book.vocabulary())  # the same checks as for any other labels
        workspace.journal.record([_imported(p, EPOCH) for p in labelled], source="import")


def _imported(labelled: LabelledPicture, moment: datetime) -> Harvest:
    """A label that came with the data: older than whatever an annotator says."""
    return Harvest(labelled.picture.key, labelled.annotations, 0, moment, False, {}, None, None)
