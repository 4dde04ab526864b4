"""Implementation of the Studio protocol for a real Label Studio server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from annotate.studio import task_format
from annotate.studio.api import Api
from annotate.studio.class_change import ClassChange, Resolve, no_aliases
from annotate.studio.class_migration import migrate
from annotate.studio.controls import CONTROL
from annotate.studio.convert import Json
from annotate.studio.harvest import read_harvests
from annotate.studio.label_config import label_config
from annotate.studio.ownership import owner_of, select_project, with_owner
from annotate.studio.protocol import Connection, Consensus, OpenTask, Region, Task
from annotate.studio.task_import import TaskImport
from annotate.studio.task_query import (
    ALL_FIELDS,
    ANNOTATED,
    DATA,
    OPEN,
    PREDICTIONS,
    count_filter,
    query_tasks,
    updated_since,
)
from annotate.studio.views import ensure_views
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Harvest, Vocabulary


class _Project(NamedTuple):
    """A project on the server."""

    project: int
    label_config: str
    description: str


class LabelStudio:
    """Studio on a Label Studio server.

    Tasks are created in the order of their rank. The label stream serves tasks by id ("sequential sampling")
    and the saved views sort by ``data.queue``, so both have the same order. Label Studio's own "uncertainty
    sampling" is not used, because it puts tasks without pre-annotations last.

    Args:
        connection: address and token of the server.
        timeout: seconds until a request fails as timed out.
    """

    def __init__(self, connection: Connection, *, timeout: float = 120.0) -> None:
        self.connection = connection
        self._api = Api(connection, timeout=timeout)
        self._classes: dict[int, frozenset[str]] = {}

    def ensure_project(
        self,
        title: str,
        vocabulary: Vocabulary,
        *,
        owner: str = "",
        resolve: Resolve = no_aliases,
        project: int | None = None,
        progress: CountCallback | None = None,
    ) -> int:
        """See Studio.ensure_project."""
        task_format.check_title(title)
        config = label_config(vocabulary)
        existing = self._find(title, owner, project)
        if existing is None:
            with self._api.client(f"create the project {title!r}") as sdk:
                created = sdk.projects.create(
                    title=title,
                    description=with_owner(owner),
                    label_config=config,
                    sampling="Sequential sampling",
                )
            found = int(created.id)
        else:
            found = existing.project
            if existing.label_config != config:
                change = self._change(found, vocabulary, resolve)
                migrate(self._api, found, change, vocabulary, progress)
            if owner and owner_of(existing.description) is None:
                with self._api.client(f"set the owner of the project {title!r}") as sdk:
                    sdk.projects.update(found, description=with_owner(owner, existing.description))
        self._classes[found] = frozenset(vocabulary.names)
        ensure_views(self._api, found)
        return found

    def class_change(
        self,
        title: str,
        vocabulary: Vocabulary,
        *,
        owner: str = "",
        resolve: Resolve = no_aliases,
        project: int | None = None,
    ) -> ClassChange:
        """See Studio.class_change."""
        existing = self._find(title, owner, project)
        if existing is None:
            return ClassChange(vocabulary.names)
        return self._change(existing.project, vocabulary, resolve)

    def import_tasks(
        self, project: int, tasks: Sequence[Task], *, progress: CountCallback | None = None
    ) -> dict[str, int]:
        """See Studio.import_tasks. The images must be in a sub-folder of the connection's document root."""
        root, classes = self.connection.document_root, self._classes_of(project)
        return TaskImport(self._api, project, root, classes, tasks).run(progress)

    def open_tasks(self, project: int) -> list[OpenTask]:
        """See Studio.open_tasks."""
        tasks = map(task_format.open_task, query_tasks(self._api, project, PREDICTIONS, OPEN))
        return task_format.sort_tasks([task for task in tasks if task is not None])

    def submit(
        self,
        project: int,
        task: OpenTask,
        regions: Sequence[Region],
        *,
        seconds: float,
        skipped: bool = False,
    ) -> None:
        """See Studio.submit."""
        task_format.check_labels(regions, self._classes_of(project), f"task {task.task_id}")
        body = task_format.annotation_json(task, regions, seconds, skipped)
        with self._api.client(f"store the annotation of task {task.task_id}", ignore_conflict=True) as sdk:
            sdk.annotations.create(task.task_id, **body)

    def harvest(
        self, project: int, *, since: datetime | None = None, consensus: Consensus = "latest"
    ) -> list[Harvest]:
        """See Studio.harvest."""
        if since is None:
            tasks = query_tasks(self._api, project, ALL_FIELDS, ANNOTATED, "or")
        else:
            tasks = query_tasks(self._api, project, ALL_FIELDS, [updated_since(since)])
        return read_harvests(tasks, since, consensus)

    def set_agreement(self, project: int, agreement: Mapping[str, float]) -> None:
        """See Studio.set_agreement."""
        if agreement:
            self._update_data(project, lambda data: task_format.with_agreement(data, agreement))

    def set_label_errors(self, project: int, scores: Mapping[str, float]) -> int:
        """See Studio.set_label_errors."""
        ensure_views(self._api, project)
        changed = self._update_data(project, lambda data: task_format.with_label_error(data, scores))
        return sum("label_error" in data for data in changed)

    def _update_data(self, project: int, update: Callable[[Json], Json]) -> list[Json]:
        """Change the data of annotated tasks, and return the data of all of them."""
        result = []
        for task in query_tasks(self._api, project, DATA, [count_filter("annotations", "greater")]):
            data = update(task["data"])
            result.append(data)
            if data != task["data"]:
                with self._api.client(f"update task {task['id']}") as sdk:
                    sdk.tasks.update(str(task["id"]), data=data)
        return result

    def _find(self, title: str, owner: str, known: int | None) -> _Project | None:
        """The project with this id if it belongs to the owner, else the one with this title."""
        fields = "id,title,label_config,description"
        if known is not None and owner:
            with self._api.client(f"find project {known}") as sdk:
                rows = list(sdk.projects.list(ids=str(known), page_size=1000, include=fields))
            for row in rows:
                if int(row.id) == known and owner_of(row.description or "") == owner:
                    return _Project(known, str(row.label_config), row.description or "")
        with self._api.client(f"list the projects with the title {title!r}") as sdk:
            listed = list(sdk.projects.list(title=title, page_size=1000, include=fields))
        same_title = sorted((p for p in listed if p.title == title), key=lambda p: int(p.id))
        projects = [_Project(int(p.id), str(p.label_config), p.description or "") for p in same_title]
        index = select_project([p.description for p in projects], title, owner)
        return None if index is None else projects[index]

    def _change(self, project: int, vocabulary: Vocabulary, resolve: Resolve) -> ClassChange:
        change = ClassChange.between(self._read_classes(project), vocabulary.names, resolve)
        if not change.obsolete:
            return change
        return change.with_counts(query_tasks(self._api, project, ALL_FIELDS))

    def _classes_of(self, project: int) -> frozenset[str]:
        if project not in self._classes:
            self._classes[project] = self._read_classes(project)
        return self._classes[project]

    def _read_classes(self, project: int) -> frozenset[str]:
        with self._api.client(f"open project {project}") as sdk:
            config = sdk.projects.get(project).parsed_label_config
        return frozenset(config.get(CONTROL, {}).get("labels", []))
