"""Read a workspace for the pages, anew only when something in it changed."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pipelines.datasets.relabel import in_published_classes
from pipelines.workspace.workspace import Workspace
from ui.snapshot import Snapshot

_BOOKS = ("classes.yaml", "class_books.sqlite")
WATCHED = ("journal.sqlite", "journal.sqlite-wal", "dsmoe.yaml", "predictions", *_BOOKS)


def read(path: Path) -> Snapshot:
    """Everything the pages show of a workspace.

    Raises:
        WorkspaceError: there is none.
        SettingsError, ClassBookError: one of its files is wrong.
    """
    with Workspace.open(path) as workspace:
        answered, book = workspace.journal.harvests(), workspace.class_book()
        return Snapshot(
            title=workspace.settings.title,
            path=workspace.path,
            rounds=tuple(workspace.rounds()),
            champion=workspace.champion(),
            classes=book.vocabulary().names,
            images={image.key: image for image in workspace.images("pool")},
            detections=workspace.predictions(),
            annotations={
                key: in_published_classes(one, book) for key, one in workspace.annotations().items()
            },
            test={one.image.key: in_published_classes(one, book) for one in workspace.test_set()},
            sent=frozenset(task.key for task in workspace.journal.tasks() if task.key not in answered),
            least_score=workspace.settings.round.pre_annotation_score,
        )


def current(path: Path) -> Snapshot:
    """The same, kept in memory while the workspace does not change.

    Raises:
        WorkspaceError, SettingsError, ClassBookError: as :func:`read`.
    """
    return _kept(path, stamp(path))


def stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes whenever the workspace does: name, size and time of the files that say so."""
    marks = []
    for name in WATCHED:
        watched = path / name
        for file in sorted(watched.iterdir()) if watched.is_dir() else [watched]:
            if file.is_file():
                status = file.stat()
                marks.append((file.name, status.st_size, status.st_mtime_ns))
    return tuple(marks)


@st.cache_resource(max_entries=2, show_spinner="Reading the workspace")
def _kept(path: Path, mark: tuple[tuple[str, int, int], ...]) -> Snapshot:  # noqa: ARG001  # the cache's key
    return read(path)
