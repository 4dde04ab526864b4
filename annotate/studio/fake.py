"""In-memory implementation of the Studio protocol, under the same contract tests as the real client."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotate.studio import task_format
from annotate.studio.class_change import ClassChange, Resolve, no_aliases
from annotate.studio.convert import Json
from annotate.studio.harvest import read_harvests
from annotate.studio.label_config import label_config
from annotate.studio.ownership import owner_of, select_project, with_owner
from annotate.studio.protocol import Consensus, OpenTask, Region, Task
from dsmoe_core.errors import StudioError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Harvest, Vocabulary


def _utc_now() -> datetime:
    return datetime.now(UTC)


class FakeStudio:
    """Studio in memory, optionally saved to a JSON file. Tasks have the format of Label Studio's API.

    Args:
        path: JSON file that holds the state between processes; None keeps the state in memory only.
        now: clock for the timestamps of annotations.
    """

    def __init__(self, path: Path | None = None, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._path = path
        self._now = now
        self._state: dict[str, Any] = {"projects": [], "tasks": [], "last_id": 0}
        if path is not None and path.exists():
            self._state = _read(path)

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
        change = self.class_change(title, vocabulary, owner=owner, resolve=resolve, project=project)
        change.check()
        found = self._find(title, owner, project)
        if found is None:
            found = {"id": self._next_id(), "title": title}
            self._state["projects"].append(found)
        if owner_of(found.get("description", "")) is None:
            found["description"] = with_owner(owner, found.get("description", ""))
        self._rewrite_tasks(int(found["id"]), change, progress)
        found.update(classes=list(vocabulary.names), label_config=config)
        self._save()
        return int(found["id"])

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
        found = self._find(title, owner, project)
        if found is None:
            return ClassChange(vocabulary.names)
        change = ClassChange.between(found["classes"], vocabulary.names, resolve)
        return change.with_counts(self._tasks(found["id"]))

    def import_tasks(
        self, project: int, tasks: Sequence[Task], *, progress: CountCallback | None = None
    ) -> dict[str, int]:
        """See Studio.import_tasks."""
        classes = self._project(project)["classes"]
        bodies = {t.image.key: task_format.task_json(t, t.image.path.as_uri(), classes) for t in tasks}
        stored = {task["data"]["key"]: task for task in self._tasks(project)}
        for done, (key, body) in enumerate(bodies.items(), start=1):
            task = stored.get(key)
            if task is None:
                task = {"id": self._next_id(), "project": project, "predictions": [], "annotations": []}
                self._state["tasks"].append(task)
                stored[key] = task
            if task_format.is_open(task):
                task["data"] = body["data"]
                task["predictions"] += [
                    {**p, "id": self._next_id()} for p in task_format.missing_predictions(task, body)
                ]
                self._touch(task)
            if progress:
                progress(done, len(bodies))
        self._save()
        return {key: int(stored[key]["id"]) for key in bodies}

    def open_tasks(self, project: int) -> list[OpenTask]:
        """See Studio.open_tasks."""
        self._project(project)
        tasks = [task_format.open_task(t) for t in self._tasks(project) if task_format.is_open(t)]
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
        task_format.check_labels(regions, self._project(project)["classes"], f"task {task.task_id}")
        body = task_format.annotation_json(task, regions, seconds, skipped)
        if any(a.get("unique_id") == body["unique_id"] for a in self._task(task.task_id)["annotations"]):
            return
        self.annotate(task.task_id, body)

    def harvest(
        self, project: int, *, since: datetime | None = None, consensus: Consensus = "latest"
    ) -> list[Harvest]:
        """See Studio.harvest."""
        self._project(project)
        return read_harvests(self._tasks(project), since, consensus)

    def set_agreement(self, project: int, agreement: Mapping[str, float]) -> None:
        """See Studio.set_agreement."""
        self._project(project)
        for task in self._tasks(project):
            task["data"] = task_format.with_agreement(task["data"], agreement)
        self._save()

    def set_label_errors(self, project: int, scores: Mapping[str, float]) -> int:
        """See Studio.set_label_errors."""
        self._project(project)
        annotated = [task for task in self._tasks(project) if task["annotations"]]
        for task in annotated:
            task["data"] = task_format.with_label_error(task["data"], scores)
        self._save()
        return sum("label_error" in task["data"] for task in annotated)

    # Other actions of users in the labelling interface, for tests.

    def annotate(self, task_id: int, annotation: Json) -> int:
        """Add an annotation in Label Studio's format and return its id.

        Args:
            annotation: by annotator 0 unless ``completed_by`` is given.
        """
        task = self._task(task_id)
        defaults = {"was_cancelled": False, "completed_by": 0}
        added = {**defaults, **annotation, "id": self._next_id(), "updated_at": self._touch(task)}
        task["annotations"].append(added)
        self._save()
        return int(added["id"])

    def update_annotation(self, annotation_id: int, **fields: Any) -> None:
        """Change fields of an annotation."""
        task, annotation = self._annotation(annotation_id)
        annotation.update(fields, updated_at=self._touch(task))
        self._save()

    def delete_annotation(self, annotation_id: int) -> None:
        """Delete an annotation."""
        task, annotation = self._annotation(annotation_id)
        task["annotations"].remove(annotation)
        self._touch(task)
        self._save()

    def rename_project(self, project: int, title: str) -> None:
        """Change the title of a project."""
        next(p for p in self._state["projects"] if p["id"] == project)["title"] = title
        self._save()

    def delete_project(self, project: int) -> None:
        """Delete a project with its tasks."""
        self._state["projects"] = [p for p in self._state["projects"] if p["id"] != project]
        self._state["tasks"] = [t for t in self._state["tasks"] if t["project"] != project]
        self._save()

    def delete_task(self, task_id: int) -> None:
        """Delete a task with its annotations."""
        self._state["tasks"].remove(self._task(task_id))
        self._save()

    def _annotation(self, annotation_id: int) -> tuple[Json, Json]:
        """The task of an annotation, and the annotation."""
        return next(
            (task, a)
            for task in self._state["tasks"]
            for a in task["annotations"]
            if a["id"] == annotation_id
        )

    def _task(self, task_id: int) -> Json:
        task = next((task for task in self._state["tasks"] if task["id"] == task_id), None)
        if task is None:
            raise StudioError(f"task {task_id} does not exist", "List the open tasks again.")
        return task  # type: ignore[no-any-return]

    def _touch(self, task: Json) -> str:
        """Set the update time of a task to now and return it."""
        task["updated_at"] = self._now().isoformat()
        return str(task["updated_at"])

    def _project(self, project: int) -> Json:
        existing = next((p for p in self._state["projects"] if p["id"] == project), None)
        if existing is None:
            raise StudioError(f"project {project} does not exist", "Open the project again.")
        return dict(existing)

    def _tasks(self, project: int) -> list[Json]:
        return [task for task in self._state["tasks"] if task["project"] == project]

    def _find(self, title: str, owner: str, known: int | None) -> Json | None:
        for project in self._state["projects"]:
            if owner and project["id"] == known and owner_of(project.get("description", "")) == owner:
                return project  # type: ignore[no-any-return]
        projects = [p for p in self._state["projects"] if p["title"] == title]
        index = select_project([p.get("description", "") for p in projects], title, owner)
        return None if index is None else projects[index]

    def _rewrite_tasks(self, project: int, change: ClassChange, progress: CountCallback | None) -> None:
        total = sum(change.annotations.values()) + sum(change.pre_annotations.values())
        done = 0
        for task in self._tasks(project):
            for kind in ("annotations", "predictions"):
                for item in task[kind]:
                    drop = kind == "predictions" and task_format.is_open(task)
                    results = change.rewrite(item["result"], drop=drop)
                    if results is not None:
                        item["result"] = results
                        done += 1
                        if kind == "annotations":
                            item["updated_at"] = self._touch(task)
                        if progress:
                            progress(min(done, total), total)

    def _next_id(self) -> int:
        self._state["last_id"] += 1
        return int(self._state["last_id"])

    def _save(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(self._state))
        temporary.replace(self._path)


def _read(path: Path) -> dict[str, Any]:
    """The state in a file.

    Raises:
        StudioError: the file is damaged.
    """
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        state = None
    if not isinstance(state, dict) or not {"projects", "tasks", "last_id"} <= set(state):
        raise StudioError(
            f"{path}, the state of the stub, is damaged", "Delete it, and open the round again."
        )
    return state
