"""Imports tasks with pre-annotations into Label Studio: validated first, then sent in batches.

Memory per task is small (key, position and id), and request bodies exist only while their batch is sent. So
100,000 images need little more memory than 1,000.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from annotate.studio import task_format
from annotate.studio.api import Api
from annotate.studio.convert import Json
from annotate.studio.protocol import Task
from annotate.studio.task_query import DATA, OPEN, PREDICTIONS, query_tasks
from dsmoe_core.errors import StudioError
from dsmoe_core.progress import CountCallback

T = TypeVar("T")
BATCH = 250
"""Tasks per request: about a third of a second, so that the progress bar moves."""


class TaskImport:
    """One import of tasks into a project.

    Args:
        root: the server's document root for local files.
        classes: the project's classes.
        tasks: indexed twice, in any order; may create each task on access.
        batch: tasks per request; BATCH by default.
    """

    def __init__(
        self,
        api: Api,
        project: int,
        root: Path,
        classes: Collection[str],
        tasks: Sequence[Task],
        *,
        batch: int | None = None,
    ) -> None:
        self._batch = batch or BATCH
        self._api = api
        self._project = project
        self._root = root
        self._classes = classes
        self._tasks = tasks
        self._resolve_folder = lru_cache(_resolve_folder)
        self._index: dict[str, int] = {}  # image key -> index into tasks, sorted by round and rank
        self._version: str | None = None  # newest model version among the pre-annotations
        self._incomplete = False  # the server stored tasks without all of their pre-annotations

    def run(self, progress: CountCallback | None = None) -> dict[str, int]:
        """Validate all tasks, then import them; see ``Studio.import_tasks``."""
        for folder in sorted(self._validate()):
            self._ensure_storage(folder)
        ids = ids_by_key(self._api, self._project, self._index)
        new = [key for key in self._index if key not in ids]
        if existing := len(ids):
            self._update_open_tasks(ids)
        for number, keys in enumerate(_batches(new, self._batch)):
            if progress:
                progress(existing + number * self._batch, len(self._index))
            ids.update(zip(keys, self._create([self._body(key) for key in keys]), strict=True))
        if self._incomplete:  # seen once on a busy server
            self._update_open_tasks(ids)
        if progress:
            progress(len(self._index), len(self._index))
        self._set_model_version()
        return {key: ids[key] for key in sorted(self._index, key=self._index.__getitem__)}

    def _validate(self) -> set[Path]:
        """Build the body of every task without sending it. Returns the folders of the images."""
        order: list[tuple[int, int, int, str]] = []
        folders = set()
        latest = (-1, -1)
        for index, task in enumerate(self._tasks):
            task_format.task_json(task, self._image_url(task.image.path), self._classes)
            folders.add(self._resolve_folder(task.image.path.parent))
            order.append((task.round, task.rank, index, task.image.key))
            if task.prediction is not None and (task.round, task.rank) > latest:
                latest, self._version = (task.round, task.rank), task.prediction.version
        self._index = {key: index for _, _, index, key in sorted(order)}
        return folders

    def _body(self, key: str) -> Json:
        task = self._tasks[self._index[key]]
        return task_format.task_json(task, self._image_url(task.image.path), self._classes)

    def _create(self, bodies: Sequence[Json]) -> list[int]:
        """Create tasks with their predictions in one request and return the task ids."""
        path = f"api/projects/{self._project}/import"
        action = f"import tasks into project {self._project}"
        response = self._api.request(action, "POST", path, params={"return_task_ids": "true"}, body=bodies)
        ids = [int(i) for i in response.get("task_ids", [])]
        if len(ids) != len(bodies):
            raise StudioError(
                f"Label Studio stored {len(ids)} of {len(bodies)} tasks",
                "Run this again to send the rest.",
            )
        predictions = sum(len(body["predictions"]) for body in bodies)
        self._incomplete = self._incomplete or response.get("prediction_count") != predictions
        return ids

    def _update_open_tasks(self, ids: Mapping[str, int]) -> None:
        """Update the data of existing open tasks and add their missing predictions.

        Older predictions stay on the task; the labelling interface shows the latest. If they were deleted,
        the server would refuse the annotation of a user who has the task open.
        """
        for batch in _batches(self._missing_predictions(ids), self._batch):
            with self._api.client(f"import pre-annotations into project {self._project}") as sdk:
                created = sdk.projects.import_predictions(self._project, request=batch).created
            if created != len(batch):
                raise StudioError(
                    f"Label Studio stored pre-annotations for {created} of {len(batch)} tasks",
                    "Run this again to send the rest.",
                )

    def _missing_predictions(self, ids: Mapping[str, int]) -> Iterator[Json]:
        """Predictions that open tasks lack. Updates the data of each task on the way."""
        for task in query_tasks(self._api, self._project, PREDICTIONS, OPEN):
            key = task["data"].get("key", "")
            if ids.get(key) != task["id"]:
                continue
            body = self._body(key)
            if task["data"] != body["data"]:
                with self._api.client(f"update task {task['id']}") as sdk:
                    sdk.tasks.update(str(task["id"]), data=body["data"])
            yield from ({**p, "task": task["id"]} for p in task_format.missing_predictions(task, body))

    def _set_model_version(self) -> None:
        """Set the project's model version: the label stream shows only predictions of that version."""
        if self._version is not None:
            with self._api.client(f"set the model version of project {self._project}") as sdk:
                sdk.projects.update(self._project, model_version=self._version)

    def _ensure_storage(self, folder: Path) -> None:
        """Add a folder to the project's local storage. Without it the server answers 404 for its images."""
        with self._api.client(f"add the folder {folder} to project {self._project}") as sdk:
            local = sdk.import_storage.local
            if not any(Path(row.path) == folder for row in local.list(project=self._project)):
                local.create(project=self._project, title=folder.name, path=str(folder), use_blob_urls=True)

    def _image_url(self, path: Path) -> str:
        folder = self._resolve_folder(path.parent)
        if self._root not in folder.parents:
            raise StudioError(
                f"image {path} is not in a sub-folder of {self._root}, Label Studio's document root",
                "Start Label Studio with a document root above the folder of the images.",
            )
        return f"/data/local-files/?d={quote((folder / path.name).relative_to(self._root).as_posix())}"


def ids_by_key(api: Api, project: int, keys: Collection[str]) -> dict[str, int]:
    """Ids of the existing tasks with these image keys.

    An interrupted import can go on in the server while the next one starts, which creates duplicates. Open
    duplicates are deleted here: an annotated task is kept, else the first one.
    """
    ids: dict[str, int] = {}
    duplicates: dict[str, list[int]] = {}
    for task in query_tasks(api, project, DATA):
        key = task["data"].get("key")
        if key in keys and ids.setdefault(key, int(task["id"])) != task["id"]:
            duplicates.setdefault(key, [ids[key]]).append(int(task["id"]))
    open_ids = {int(task["id"]) for task in query_tasks(api, project, DATA, OPEN)} if duplicates else set()
    for key, task_ids in duplicates.items():
        ids[key] = min(task_ids, key=lambda i: (i in open_ids, i))
        for extra in open_ids.intersection(task_ids) - {ids[key]}:
            with api.client(f"delete task {extra}") as sdk:
                sdk.tasks.delete(str(extra))
    return ids


def _resolve_folder(folder: Path) -> Path:
    return folder.absolute().resolve()


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
