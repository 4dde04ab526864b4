"""The real Label Studio behind the Studio protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from annotate.studio import harvest as harvesting
from annotate.studio import task_format
from annotate.studio.api import Api
from annotate.studio.class_change import ClassChange, Resolve, no_aliases
from annotate.studio.class_migration import migrate
from annotate.studio.controls import CONTROL
from annotate.studio.label_config import label_config
from annotate.studio.ownership import owner_of, select_project, with_owner
from annotate.studio.protocol import Connection, Consensus, OpenTask, Region, Task
from annotate.studio.task_import import TaskImport
from annotate.studio.task_query import (
    ANNOTATED,
    DATA,
    EVERYTHING,
    OPEN,
    PRE_ANNOTATIONS,
    count_filter,
    query_tasks,
    updated_since,
)
from annotate.studio.views import ensure_views
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Harvest, Vocabulary


class _Found(NamedTuple):
    """A project that is there."""

    project: int
    label_config: str
    description: str


class LabelStudio:
    """Obeys Studio.

    The label stream serves tasks in the order of their numbers ("sequential"), and the saved view sorts by
    ``data.queue``; tasks are sent most useful first, so both show the same order. Label Studio's own
    "uncertainty sampling" would not do: it hides tasks without pre-annotations behind all others.

    Args:
        connection: where the server is.
        timeout: seconds until a call counts as hung.
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
        progress: CountCallback | None = None,
    ) -> int:
        """See Studio.ensure_project."""
        task_format.check_title(title)
        config = label_config(vocabulary)
        found = self._find(title, owner)
        if found is None:
            with self._api.client(f"make the project {title!r}") as sdk:
                made = sdk.projects.create(
                    title=title,
                    description=with_owner(owner),
                    label_config=config,
                    sampling="Sequential sampling",
                )
            project = int(made.id)
        else:
            project = found.project
            if found.label_config != config:
                change = self._change(project, vocabulary, resolve)
                migrate(self._api, project, change, vocabulary, progress)
            if owner and owner_of(found.description) is None:
                with self._api.client(f"say whose the project {title!r} is") as sdk:
                    sdk.projects.update(project, description=with_owner(owner, found.description))
        self._classes[project] = frozenset(vocabulary.names)
        ensure_views(self._api, project)
        return project

    def class_change(
        self, title: str, vocabulary: Vocabulary, *, owner: str = "", resolve: Resolve = no_aliases
    ) -> ClassChange:
        """See Studio.class_change."""
        found = self._find(title, owner)
        return self._change(found.project, vocabulary, resolve) if found else ClassChange(vocabulary.names)

    def import_tasks(
        self, project: int, tasks: Sequence[Task], *, progress: CountCallback | None = None
    ) -> dict[str, int]:
        """See Studio.import_tasks. The images must lie in a sub-folder of the connection's document root."""
        root, classes = self.connection.document_root, self._classes_of(project)
        return TaskImport(self._api, project, root, classes, tasks).run(progress)

    def open_tasks(self, project: int) -> list[OpenTask]:
        """See Studio.open_tasks."""
        found = (task_format.open_task(row) for row in query_tasks(self._api, project, PRE_ANNOTATIONS, OPEN))
        return task_format.sort_tasks([task for task in found if task is not None])

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
        with self._api.client(f"take the annotation of task {task.task_id}", once=True) as sdk:
            sdk.annotations.create(task.task_id, **body)

    def harvest(
        self, project: int, *, since: datetime | None = None, consensus: Consensus = "latest"
    ) -> list[Harvest]:
        """See Studio.harvest."""
        if since is None:
            found = query_tasks(self._api, project, EVERYTHING, ANNOTATED, "or")
        else:
            found = query_tasks(self._api, project, EVERYTHING, [updated_since(since)])
        return harvesting.read(found, since, consensus)

    def set_agreement(self, project: int, agreement: Mapping[str, float]) -> None:
        """See Studio.set_agreement."""
        if agreement:
            for row in query_tasks(self._api, project, DATA, [count_filter("annotations", "greater")]):
                progress = task_format.with_agreement(row["data"], agreement)
                if progress != row["data"]:
                    with self._api.client(f"update task {row['id']}") as sdk:
                        sdk.tasks.update(str(row["id"]), data=progress)

    # ---- project

    def _find(self, title: str, owner: str) -> _Found | None:
        wanted = "id,title,label_config,description"
        with self._api.client(f"list the projects called {title!r}") as sdk:
            found = list(sdk.projects.list(title=title, page_size=1000, include=wanted))
        same = sorted((p for p in found if p.title == title), key=lambda p: int(p.id))
        rows = [_Found(int(p.id), str(p.label_config), p.description or "") for p in same]
        index = select_project([row.description for row in rows], title, owner)
        return None if index is None else rows[index]

    def _change(self, project: int, vocabulary: Vocabulary, resolve: Resolve) -> ClassChange:
        change = ClassChange.between(self._read_classes(project), vocabulary.names, resolve)
        return change.with_counts(query_tasks(self._api, project, EVERYTHING)) if change.obsolete else change

    def _classes_of(self, project: int) -> frozenset[str]:
        if project not in self._classes:
            self._classes[project] = self._read_classes(project)
        return self._classes[project]

    def _read_classes(self, project: int) -> frozenset[str]:
        with self._api.client(f"open project {project}") as sdk:
            config = sdk.projects.get(project).parsed_label_config
        return frozenset(config.get(CONTROL, {}).get("labels", []))
