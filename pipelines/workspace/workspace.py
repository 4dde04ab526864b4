"""A workspace: one folder with everything about one labelling project; see ``LAYOUT``.

Any number of processes may read it. A process that writes holds its lock; the operating system releases the
lock when the process ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self

from dsmoe_core.atomic import atomic_write, disk_full_as_error
from dsmoe_core.data.import_account import ImportAccount
from dsmoe_core.errors import WorkspaceBusyError, WorkspaceError
from dsmoe_core.schema import ImageRecord, LabelledImage, Prediction
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.class_books import ClassBooks
from pipelines.workspace.dataset_version import DatasetVersion, parents_first
from pipelines.workspace.embedding_store import EmbeddingStore
from pipelines.workspace.import_log import IMPORTS, ImportRecord, write_record
from pipelines.workspace.journal import Journal, Role
from pipelines.workspace.prediction_store import PredictionStore
from pipelines.workspace.registry import Registry
from pipelines.workspace.round_summary import RoundSummary, summarize_rounds
from prompts.class_book import ClassBook

LAYOUT = """
dsmoe.yaml       settings; written last, so a folder with it is complete
classes.yaml     working copy of the class book, for editing
class_books.sqlite  versions of the class book, one of which is published
images/          all usable images, KEY.ext
quarantine.json  images that cannot be used, with the reason
journal.sqlite   rounds, tasks, annotations, steps, champion
datasets/        dataset versions, ID.json, immutable
models/          ID/{model.safetensors, model.json, card.json, MODEL_CARD.md, evaluation.json,
                     evaluation.safetensors, operating_points.json, parts.json}
imports/         NNNN-COMMAND.json, round-N.json: what an import or a harvest took, clipped or left out
predictions/     MODEL+BOOK.jsonl, and MODEL+BOOK.embeddings: feature vectors of the images
tracking/        training curves and copies of the models, by MLflow; created by the first training
refine/          refinements of class descriptions, ID.json; created by the first one
studio/          Label Studio's data, credentials (0600) and log
review/          FiftyOne's database
orchestration/   Dagster's files; created by `dsmoe schedule up`
warm-start.safetensors  initial weights, by `dsmoe pretrain`; with a card, warm-start.json
warm-start-initial.safetensors  the user's file that they were trained from; with its card
cache/           may be deleted
"""
_UNIQUE_ID = "workspace_id"
_PROJECT, _PROJECT_TITLE = "project", "project_title"
_INTENSITY_MAX = "intensity_max"
_QUARANTINE = "quarantine.json"
_FOLDERS = ("images", "datasets", "models", "predictions", "studio", "review", "cache")


class Workspace:
    """An opened workspace; use ``create`` or ``open``."""

    def __init__(self, path: Path, settings: WorkspaceSettings, journal: Journal) -> None:
        self.path = path
        self.settings = settings
        self.journal = journal
        self.prediction_store = PredictionStore(path / "predictions")
        self.embedding_store = EmbeddingStore(path / "predictions")
        self.registry = Registry(path / "models", journal)
        self.class_books = ClassBooks(path, settings.detector.text_encoder)
        self._holds_lock = False

    @classmethod
    def create(cls, path: Path, settings: WorkspaceSettings) -> Self:
        """Create the folders of a new workspace; other processes can open it after ``complete``.

        Raises:
            WorkspaceError: the folder is a workspace, has something else in it, or is an incomplete workspace
                of another format version.
            PrerequisiteError: the disk is full.
        """
        path = path.expanduser().resolve()
        if (path / "dsmoe.yaml").exists():
            raise WorkspaceError(f"{path} is a workspace already", "Choose another folder for a new one.")
        occupied = path.is_file() or (path.is_dir() and any(path.iterdir()))
        if occupied and not is_workspace_folder(path):
            raise WorkspaceError(
                f"{path} is not empty and not a workspace; expected a new or empty folder",
                "Choose another folder.",
            )
        with disk_full_as_error(path):
            path.mkdir(parents=True, exist_ok=True)
            journal = Journal.at(path / "journal.sqlite")  # refuses another format version
            for name in _FOLDERS:
                (path / name).mkdir(exist_ok=True)
            (path / "studio").chmod(0o700)
        return cls(path, settings, journal)

    def complete(self) -> None:
        """Write the settings, which makes the workspace complete."""
        self.settings.write(self.path / "dsmoe.yaml")

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a complete workspace.

        Raises:
            WorkspaceError: there is no complete workspace, or it has another format version.
            SettingsError: its settings are wrong.
        """
        path = path.expanduser().resolve()
        if not (path / "dsmoe.yaml").is_file():
            incomplete = is_workspace_folder(path)
            raise WorkspaceError(
                f"{path} is {'an incomplete' if incomplete else 'not a'} workspace: dsmoe.yaml is missing",
                "Run the same `dsmoe init` again." if incomplete else "Make one with `dsmoe init`.",
            )
        settings = WorkspaceSettings.read(path / "dsmoe.yaml")
        return cls(path, settings, Journal.at(path / "journal.sqlite"))

    def unique_id(self) -> str:
        """Random id of the workspace, created at the first call; moving or renaming it does not change it."""
        unique_id = self.journal.value(_UNIQUE_ID)
        if unique_id is None:
            unique_id = secrets.token_hex(4)
            self.journal.set_value(_UNIQUE_ID, unique_id)
        return str(unique_id)

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the workspace; nested calls on the same object do nothing.

        Raises:
            WorkspaceBusyError: another process holds it.
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
                raise WorkspaceBusyError(
                    f"{self.path} is in use by another dsmoe (process {file.read().strip() or 'unknown'})",
                    "Wait until it ends, or stop it.",
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            self._holds_lock = True
            try:
                yield
            finally:
                self._holds_lock = False

    @cached_property
    def _class_book(self) -> ClassBook:
        return self.class_books.published()

    def class_book(self) -> ClassBook:
        """The class book that was published when this object first read it; the detector uses this one."""
        return self._class_book

    def reload_class_book(self) -> None:
        """Read the published class book again at the next use."""
        self.__dict__.pop("_class_book", None)

    def working_book(self) -> ClassBook:
        """The working copy of the class book, ``classes.yaml``; the detector uses it once it is published.

        Raises:
            ClassBookError: it is missing or wrong.
        """
        return self.class_books.working()

    def images(self, role: Role | None = None) -> list[ImageRecord]:
        """Usable images of the pool, of the test set, or all, ordered by name."""
        return self.journal.images(self.path, role)

    def images_by_key(self) -> dict[str, ImageRecord]:
        """All usable images by key."""
        return {image.key: image for image in self.images()}

    def require_files(self, images: Iterable[ImageRecord]) -> None:
        """Check that the files of images are there, before a training or prediction starts.

        Raises:
            WorkspaceError: a file is missing.
        """
        missing = [image for image in images if not image.path.is_file()]
        if missing:
            raise WorkspaceError(
                f"{len(missing)} image file(s) of the workspace are missing, such as {missing[0].path}, "
                f"imported as {missing[0].name}",
                "Restore them from a copy, then run the same command again.",
            )

    def quarantine(self) -> dict[str, str]:
        """Reason by name of every file that was left out when images were imported.

        Raises:
            WorkspaceError: quarantine.json is damaged.
        """
        path = self.path / _QUARANTINE
        if not path.is_file():
            return {}
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            return {entry["name"]: entry["reason"] for entry in entries}
        except (ValueError, KeyError, TypeError) as error:
            raise WorkspaceError(
                f"{path} is damaged", "Delete it; the list of the files in it is then lost."
            ) from error

    def save_quarantine(self, reasons: Mapping[str, str]) -> None:
        """Write the files that were left out, with the reason by name."""
        entries = [{"name": name, "reason": reason} for name, reason in reasons.items()]
        atomic_write(self.path / _QUARANTINE, json.dumps(entries, indent=1) + "\n")

    def intensity_max(self) -> int | None:
        """Value that is white in the workspace's images of more than 8 bits; None: there was none so far."""
        value = self.journal.value(_INTENSITY_MAX)
        return None if value is None else int(value)

    def set_intensity_max(self, value: int | None) -> None:
        """Record the value that is white in all images of more than 8 bits."""
        self.journal.set_value(_INTENSITY_MAX, value)

    def rounds(self) -> list[RoundSummary]:
        """All rounds, oldest first."""
        harvests = self.journal.harvests()
        sent = self.journal.tasks()
        sent_keys = {task.key for task in sent}
        imported = [h for key, h in harvests.items() if key not in sent_keys and h.labelled]
        initial = (len(imported), sum(len(h.annotations) for h in imported))
        return summarize_rounds(self.journal.rounds(), sent, harvests, initial)

    def champion(self) -> str | None:
        """The model in use; None before the first promotion."""
        return self.registry.champion()

    def prediction_version(self, model: str) -> str:
        """Version of a model's predictions with the published class book, ``MODEL+BOOK``."""
        return f"{model}+{self.class_book().version}"

    def predictions(self, version: str | None = None) -> dict[str, Prediction]:
        """Stored predictions of a version, by image key; by default of the champion, if there is one."""
        if version is None:
            champion = self.champion()
            if champion is None:
                return {}
            version = self.prediction_version(champion)
        return self.prediction_store.load(version)

    def project(self) -> int | None:
        """Id of the labelling project that the last round was sent to; None if the title was changed since.

        Another title in the settings asks for another project.
        """
        same_title = self.journal.value(_PROJECT_TITLE) == self.settings.title
        project = self.journal.value(_PROJECT)
        return int(project) if project is not None and same_title else None

    def set_project(self, project: int) -> None:
        """Record the labelling project that a round was sent to."""
        self.journal.set_value(_PROJECT, project)
        self.journal.set_value(_PROJECT_TITLE, self.settings.title)

    def save_round_account(self, number: int, account: ImportAccount) -> None:
        """Write the account of a round's harvest."""
        file = self.round_account_file(number)
        file.parent.mkdir(exist_ok=True)
        write_record(file, "round close", {"harvest": account})

    def round_account_file(self, number: int) -> Path:
        """Path of the account of a round's harvest."""
        return self.path / IMPORTS / f"round-{number}.json"

    def round_account(self, number: int) -> ImportAccount | None:
        """The account of a round's last harvest; None before the first one."""
        file = self.round_account_file(number)
        if not file.is_file():
            return None
        return ImportRecord.from_dict(json.loads(file.read_bytes())).accounts["harvest"]

    def annotations(self) -> dict[str, LabelledImage]:
        """The latest annotations of every image that counts as labelled, by image key."""
        images = self.images_by_key()
        return {
            key: LabelledImage(images[key], harvest.annotations)
            for key, harvest in self.journal.harvests().items()
            if harvest.labelled
        }

    def dataset_version(self, version: str) -> DatasetVersion:
        """The dataset version of this id."""
        return DatasetVersion.load(self.path / "datasets", version)

    def dataset_versions(self) -> list[DatasetVersion]:
        """All dataset versions, each after its parent; the test set comes first."""
        folder = self.path / "datasets"
        loaded = {path.stem: DatasetVersion.load(folder, path.stem) for path in sorted(folder.glob("*.json"))}
        return parents_first(loaded)

    def test_set(self) -> list[LabelledImage]:
        """The fixed test set, whose images are never sent out; empty if none was given."""
        version = self.journal.value("test_set")
        return [] if version is None else self.dataset_version(version).labelled(self.images_by_key())


def is_workspace_folder(path: Path) -> bool:
    """Whether this folder is a workspace, complete or not."""
    return (path / "journal.sqlite").is_file() or (path / "dsmoe.yaml").is_file()
