"""Sending tasks with their pre-annotations to the real server: checked first, then a batch at a time.

What is held is small for each task (its key, place and number), so that 100,000 images need little more
memory than 1,000: tasks may be made when they are asked for, and bodies live as long as their batch.
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
from annotate.studio.task_query import DATA, OPEN, PRE_ANNOTATIONS, query_tasks
from dsmoe_core.errors import StudioError
from dsmoe_core.progress import CountCallback

T = TypeVar("T")
BATCH = 250  # tasks a call: a third of a second, so that a progress bar moves


class TaskImport:
    """One push of tasks into a project.

    Args:
        root: the folder below which the server may read images.
        classes: of the project.
        tasks: looked at twice, in any order; may make each task anew when it is asked for.
        batch: tasks a call.
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
        self._folder = lru_cache(_folder)
        self._places: dict[str, int] = {}  # key -> place among the tasks, most useful first
        self._version: str | None = None
        self._dropped = False  # whether the server took tasks without all of their pre-annotations

    def run(self, progress: CountCallback | None = None) -> dict[str, int]:
        """Check everything, then send it; see Studio.import_tasks."""
        folders = self._check()
        for folder in sorted(folders):
            self._ensure_storage(folder)
        ids = ids_by_key(self._api, self._project, self._places)
        new = [key for key in self._places if key not in ids]
        if known := len(ids):
            self._refresh(ids)
        for number, keys in enumerate(_batches(new, self._batch)):
            if progress:
                progress(known + number * self._batch, len(self._places))
            ids.update(zip(keys, self._import([self._body(key) for key in keys]), strict=True))
        if self._dropped:  # seen once on a busy server: tasks without the pre-annotations they came with
            self._refresh(ids)
        if progress:
            progress(len(self._places), len(self._places))
        self._show_version()
        return {key: ids[key] for key in sorted(self._places, key=self._places.__getitem__)}

    def _check(self) -> set[Path]:
        """Go through all tasks once, sending nothing; gives the folders of their images."""
        order: list[tuple[int, int, int, str]] = []
        folders = set()
        newest = (-1, -1)
        for place, task in enumerate(self._tasks):
            task_format.task_json(task, self._address(task.image.path), self._classes)
            folders.add(self._folder(task.image.path.parent))
            order.append((task.round, task.rank, place, task.image.key))
            if task.prediction is not None and (task.round, task.rank) > newest:
                newest, self._version = (task.round, task.rank), task.prediction.version
        self._places = {key: place for _, _, place, key in sorted(order)}
        return folders

    def _body(self, key: str) -> Json:
        task = self._tasks[self._places[key]]
        return task_format.task_json(task, self._address(task.image.path), self._classes)

    def _import(self, bodies: Sequence[Json]) -> list[int]:
        path = f"api/projects/{self._project}/import"
        what = f"import tasks into project {self._project}"
        answer = self._api.request(what, "POST", path, params={"return_task_ids": "true"}, body=bodies)
        ids, taken = [int(i) for i in answer.get("task_ids", [])], answer.get("prediction_count")
        shown = sum(len(body["predictions"]) for body in bodies)
        if len(ids) != len(bodies):
            raise StudioError(
                f"Label Studio took {len(ids)} of {len(bodies)} tasks",
                "Run this again: what is missing is sent again.",
            )
        self._dropped = self._dropped or taken != shown
        return ids

    def _refresh(self, ids: Mapping[str, int]) -> None:
        """Bring tasks that are there already, and still open, up to date.

        Older sets of pre-annotations stay on the task, and the page shows the newest: were they deleted, the
        server would refuse the work of whoever has the task open.
        """
        for some in _batches(self._outdated(ids), self._batch):
            with self._api.client(f"import pre-annotations into project {self._project}") as sdk:
                created = sdk.projects.import_predictions(self._project, request=some).created
            if created != len(some):
                raise StudioError(
                    f"Label Studio stored {created} of {len(some)} pre-annotations",
                    "Run this again: what is missing is sent again.",
                )

    def _outdated(self, ids: Mapping[str, int]) -> Iterator[Json]:
        """Pre-annotations that open tasks lack; updates the tasks' data on the way."""
        for row in query_tasks(self._api, self._project, PRE_ANNOTATIONS, OPEN):
            key = row["data"].get("key", "")
            if ids.get(key) != row["id"]:
                continue
            body = self._body(key)
            if row["data"] != body["data"]:
                with self._api.client(f"update task {row['id']}") as sdk:
                    sdk.tasks.update(str(row["id"]), data=body["data"])
            yield from ({**p, "task": row["id"]} for p in task_format.missing_predictions(row, body))

    def _show_version(self) -> None:
        """Name the newest pre-annotations as the project's: the label stream shows no others."""
        if self._version is not None:
            with self._api.client(f"show the newest pre-annotations of project {self._project}") as sdk:
                sdk.projects.update(self._project, model_version=self._version)

    def _ensure_storage(self, folder: Path) -> None:
        """A row that lets the server show this folder's images; without it each one is a 404."""
        with self._api.client(f"show the images in {folder} in project {self._project}") as sdk:
            local = sdk.import_storage.local
            if not any(Path(row.path) == folder for row in local.list(project=self._project)):
                local.create(project=self._project, title=folder.name, path=str(folder), use_blob_urls=True)

    def _address(self, path: Path) -> str:
        folder = self._folder(path.parent)
        if self._root not in folder.parents:
            raise StudioError(
                f"image {path} does not lie in a sub-folder of {self._root}, all that Label Studio may show",
                "Start Label Studio with the folder above the images' as its document root.",
            )
        return f"/data/local-files/?d={quote((folder / path.name).relative_to(self._root).as_posix())}"


def ids_by_key(api: Api, project: int, keys: Collection[str]) -> dict[str, int]:
    """The tasks of these keys that are there.

    Killed at the wrong moment, an import can go on in the server while the next one begins: of two open
    tasks with one key, the later is removed here.
    """
    ids: dict[str, int] = {}
    doubled: dict[str, list[int]] = {}
    for row in query_tasks(api, project, DATA):
        key = row["data"].get("key")
        if key in keys and ids.setdefault(key, int(row["id"])) != row["id"]:
            doubled.setdefault(key, [ids[key]]).append(int(row["id"]))
    still_open = {int(row["id"]) for row in query_tasks(api, project, DATA, OPEN)} if doubled else set()
    for key, consensus in doubled.items():
        ids[key] = min(consensus, key=lambda i: (i in still_open, i))
        for extra in still_open.intersection(consensus) - {ids[key]}:
            with api.client(f"delete task {extra}") as sdk:
                sdk.tasks.delete(str(extra))
    return ids


def _folder(parent: Path) -> Path:
    return parent.absolute().resolve()


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
