"""Reads snapshots of a workspace, and caches them until the workspace changes."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pipelines.workspace.import_log import read_imports
from pipelines.workspace.relabel import or_keep, relabel_image
from pipelines.workspace.workspace import Workspace
from ui.snapshot import Snapshot

WATCHED = (
    "journal.sqlite",
    "journal.sqlite-wal",
    "dsmoe.yaml",
    "predictions",
    "classes.yaml",
    "class_books.sqlite",
    "imports",
)
"""Files and folders of a workspace whose changes make a snapshot out of date."""


def read_snapshot(path: Path) -> Snapshot:
    """Read all data of the pages.

    Raises:
        WorkspaceError: the path is not a workspace.
        SettingsError, ClassBookError: one of its files is wrong.
    """
    with Workspace.open(path) as workspace:
        harvests, book = workspace.journal.harvests(), workspace.class_book()
        rounds = tuple(workspace.rounds())
        return Snapshot(
            title=workspace.settings.title,
            path=workspace.path,
            rounds=rounds,
            champion=(champion := workspace.champion()),
            classes=book.vocabulary().names,
            images={image.key: image for image in workspace.images("pool")},
            predictions=workspace.predictions(),
            annotations={
                key: relabel_image(labelled, or_keep(book))
                for key, labelled in workspace.annotations().items()
            },
            test_set={item.image.key: relabel_image(item, or_keep(book)) for item in workspace.test_set()},
            sent=frozenset(task.key for task in workspace.journal.tasks() if task.key not in harvests),
            round_settings=workspace.settings.round,
            accounts={
                row.round: account
                for row in rounds
                if (account := workspace.round_account(row.round)) is not None
            },
            imports=read_imports(workspace.path),
            operating_points=workspace.registry.operating_points(champion) if champion else None,
        )


def cached_snapshot(path: Path) -> Snapshot:
    """A snapshot from the cache, or a new one if the workspace has changed.

    Raises:
        WorkspaceError, SettingsError, ClassBookError: as :func:`read_snapshot`.
    """
    return _cached(path, workspace_stamp(path))


def workspace_stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and modification time of the watched files; differs after every change."""
    stamps = []
    for name in WATCHED:
        watched = path / name
        for file in sorted(watched.iterdir()) if watched.is_dir() else [watched]:
            if file.is_file():
                status = file.stat()
                stamps.append((file.name, status.st_size, status.st_mtime_ns))
    return tuple(stamps)


@st.cache_resource(max_entries=2, show_spinner="Reading the workspace")
def _cached(path: Path, stamp: tuple[tuple[str, int, int], ...]) -> Snapshot:  # noqa: ARG001  # cache key
    return read_snapshot(path)
