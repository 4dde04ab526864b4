"""A workspace: one folder with everything about one labelling project; see ``LAYOUT``.

Readers open it freely. Whoever writes holds its lock, so that two processes never do at once; the lock
goes with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self

from dsmoe_core.atomic import disk_full_as_error
from dsmoe_core.errors import WorkspaceError
from dsmoe_core.schema import ImageRecord, LabelledImage, Prediction
from pipelines.settings import WorkspaceSettings
from pipelines.workspace.class_books import ClassBooks
from pipelines.workspace.dataset_version import DatasetVersion
from pipelines.workspace.journal import Journal, Role
from pipelines.workspace.prediction_store import PredictionStore
from pipelines.workspace.registry import Registry
from pipelines.workspace.round_summary import RoundSummary, summarize_rounds
from prompts.class_book import ClassBook

LAYOUT = """
dsmoe.yaml       settings; written last, so a folder with it is whole
classes.yaml     the class book that people edit; in use is the published version of
class_books.sqlite  its versions
images/          every usable image, KEY.ext
quarantine.json  images that cannot be used, with the reason
journal.sqlite   rounds, tasks, annotations, steps, champion
datasets/        ID.json, immutable
models/          ID/{model.safetensors, model.json, card.json}
predictions/     MODEL+BOOK.jsonl
tracking/        curves of trainings, by MLflow; made when the first one begins
refine/          ID.json: refinements of texts, with everything that was tried; made when the first one begins
studio/          Label Studio's data, credentials (0600) and log
review/          FiftyOne's database
cache/           may be deleted
"""
_MARK = "review_mark"  # by its first use, in FiftyOne
_FOLDERS = ("images", "datasets", "models", "predictions", "studio", "review", "cache")


class Workspace:
    """An opened workspace; make one with ``create`` or ``open``."""

    def __init__(self, path: Path, settings: WorkspaceSettings, journal: Journal) -> None:
        self.path = path
        self.settings = settings
        self.journal = journal
        self.prediction_store = PredictionStore(path / "predictions")
        self.registry = Registry(path / "models", journal)
        self.class_books = ClassBooks(path, settings.detector.text_encoder)
        self._holds_lock = False

    @classmethod
    def create(cls, path: Path, settings: WorkspaceSettings) -> Self:
        """Lay out the folders; not a workspace to others until ``complete`` is called.

        Raises:
            WorkspaceError: there is a complete one, or the folder holds something else.
            PrerequisiteError: the disk is full.
        """
        path = path.expanduser().resolve()
        if (path / "dsmoe.yaml").exists():
            raise WorkspaceError(f"{path} is a workspace already", "Choose another folder for a new one.")
        strange = path.is_file() or (path.is_dir() and any(path.iterdir()) and not is_workspace_folder(path))
        if strange:
            raise WorkspaceError(
                f"{path} is not empty and no workspace; expected a new or empty folder",
                "Choose another folder.",
            )
        with disk_full_as_error(path):
            for name in _FOLDERS:
                (path / name).mkdir(parents=True, exist_ok=True)
            (path / "studio").chmod(0o700)
        return cls(path, settings, Journal.at(path / "journal.sqlite"))

    def complete(self) -> None:
        """Write the settings: from now on this is a workspace."""
        self.settings.write(self.path / "dsmoe.yaml")

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a complete workspace.

        Raises:
            WorkspaceError: there is none.
            SettingsError: its settings are wrong.
        """
        path = path.expanduser().resolve()
        if not (path / "dsmoe.yaml").is_file():
            begun = is_workspace_folder(path)
            raise WorkspaceError(
                f"{path} is {'a half made' if begun else 'no'} workspace; expected dsmoe.yaml in it",
                "Run the same `dsmoe init` again." if begun else "Make one with `dsmoe init`.",
            )
        settings = WorkspaceSettings.read(path / "dsmoe.yaml")
        return cls(path, settings, Journal.at(path / "journal.sqlite"))

    def unique_id(self) -> str:
        """What tells it from every other, wherever it is moved and whatever its title: drawn once."""
        mark = self.journal.fact(_MARK)
        if mark is None:
            mark = secrets.token_hex(4)
            self.journal.set_fact(_MARK, mark)
        return str(mark)

    def close(self) -> None:
        """Let go of the journal."""
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only writer; inside another ``locked`` of this workspace it does nothing.

        A workspace from before class books had versions publishes its first one here.

        Raises:
            WorkspaceError: another process is. ClassBookError: the first class book is wrong.
        """
        if self._holds_lock:
            yield
            return
        path = self.path / ".lock"
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise WorkspaceError(
                    f"{self.path} is in use by another dsmoe (process {file.read().strip() or 'unknown'})",
                    "Wait until it ends, or stop it.",
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            self._holds_lock = True
            try:
                if (self.path / "dsmoe.yaml").is_file():
                    self.class_books.publish_first()
                yield
            finally:
                self._holds_lock = False

    @cached_property
    def _class_book(self) -> ClassBook:
        return self.class_books.published()

    def class_book(self) -> ClassBook:
        """The published class book, as it was when this workspace was opened: what the detector goes by."""
        return self._class_book

    def working_book(self) -> ClassBook:
        """``classes.yaml``, which people edit; it counts once it is published.

        Raises:
            ClassBookError: it is missing or wrong.
        """
        return self.class_books.working()

    def images(self, role: Role | None = None) -> list[ImageRecord]:
        """Usable images, by name: of the pool, of the test set, or all."""
        return self.journal.images(self.path, role)

    def images_by_key(self) -> dict[str, ImageRecord]:
        """All usable images by key."""
        return {image.key: image for image in self.images()}

    def rounds(self) -> list[RoundSummary]:
        """All rounds, oldest first."""
        harvests = self.journal.harvests()
        sent = self.journal.tasks()
        queried = {task.key for task in sent}
        imported = [h for key, h in harvests.items() if key not in queried and h.labelled]
        before = (len(imported), sum(len(h.annotations) for h in imported))
        return summarize_rounds(self.journal.rounds(), sent, harvests, before)

    def champion(self) -> str | None:
        """The model in use; None before the first promotion."""
        return self.registry.champion()

    def prediction_version(self, model: str) -> str:
        """A model's detections' version, ``MODEL+BOOK``, with the published class book."""
        return f"{model}+{self.class_book().version}"

    def predictions(self, version: str | None = None) -> dict[str, Prediction]:
        """What a version found, by image key; by default the champion's; nothing where there is none."""
        if version is None:
            champion = self.champion()
            if champion is None:
                return {}
            version = self.prediction_version(champion)
        return self.prediction_store.load(version)

    def annotations(self) -> dict[str, LabelledImage]:
        """What people said, by image key: the latest of each image that counts as labelled."""
        images = self.images_by_key()
        return {
            key: LabelledImage(images[key], harvest.annotations)
            for key, harvest in self.journal.harvests().items()
            if harvest.labelled
        }

    def dataset_version(self, version: str) -> DatasetVersion:
        """A dataset version by id."""
        return DatasetVersion.load(self.path / "datasets", version)

    def test_set(self) -> list[LabelledImage]:
        """The fixed test set, which is never queried; empty where none was given."""
        version = self.journal.fact("test_set")
        return [] if version is None else self.dataset_version(version).labelled(self.images_by_key())


def is_workspace_folder(path: Path) -> bool:
    """Whether this folder is a workspace of ours, complete or half made."""
    return (path / "journal.sqlite").is_file() or (path / "dsmoe.yaml").is_file()
