"""A labelling server in memory (or in a JSON file), under the same contract as the real one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotate.studio import harvest as harvesting
from annotate.studio import task_format
from annotate.studio.class_change import ClassChange, Resolve, no_aliases
from annotate.studio.convert import Json
from annotate.studio.label_config import label_config
from annotate.studio.ownership import owner_of, select_project, with_owner
from annotate.studio.protocol import Consensus, OpenTask, Region, Task
from dsmoe_core.errors import StudioError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Harvest, Vocabulary


def _utc_now() -> datetime:
    return datetime.now(UTC)


class FakeStudio:
    """Obeys Studio. Keeps tasks in the shape of Label Studio's own rows, so the same code reads both.

    Args:
        path: where to keep everything, so that the next process finds it again; None keeps it in memory.
        now: the clock that stamps annotations.
    """

    def __init__(self, path: Path | None = None, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._path = path
        self._now = now
        self._state: dict[str, Any] = {"projects": [], "tasks": [], "last_id": 0}
        if path is not None and path.exists():
            self._state = json.loads(path.read_text())

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
        change = self.class_change(title, vocabulary, owner=owner, resolve=resolve)
        change.check()
        project = self._find(title, owner)
        if project is None:
            project = {"id": self._next_id(), "title": title}
            self._state["projects"].append(project)
        if owner_of(project.get("description", "")) is None:
            project["description"] = with_owner(owner, project.get("description", ""))
        self._rewrite(int(project["id"]), change, progress)
        project.update(classes=list(vocabulary.names), label_config=config)
        self._save()
        return int(project["id"])

    def class_change(
        self, title: str, vocabulary: Vocabulary, *, owner: str = "", resolve: Resolve = no_aliases
    ) -> ClassChange:
        """See Studio.class_change."""
        project = self._find(title, owner)
        if project is None:
            return ClassChange(vocabulary.names)
        change = ClassChange.between(project["classes"], vocabulary.names, resolve)
        return change.with_counts(self._rows(project["id"]))

    def import_tasks(
        self, project: int, tasks: Sequence[Task], *, progress: CountCallback | None = None
    ) -> dict[str, int]:
        """See Studio.import_tasks."""
        classes = self._project(project)["classes"]
        sent = {t.image.key: task_format.task_json(t, t.image.path.as_uri(), classes) for t in tasks}
        there = {row["data"]["key"]: row for row in self._rows(project)}
        for done, (key, body) in enumerate(sent.items(), start=1):
            row = there.get(key)
            if row is None:
                row = {"id": self._next_id(), "project": project, "predictions": [], "annotations": []}
                self._state["tasks"].append(row)
                there[key] = row
            if task_format.is_open(row):
                row["data"] = body["data"]
                row["predictions"] += [
                    {**p, "id": self._next_id()} for p in task_format.missing_predictions(row, body)
                ]
                self._stamp(row)
            if progress:
                progress(done, len(sent))
        self._save()
        return {key: int(there[key]["id"]) for key in sent}

    def open_tasks(self, project: int) -> list[OpenTask]:
        """See Studio.open_tasks."""
        self._project(project)
        rows = [task_format.open_task(row) for row in self._rows(project) if task_format.is_open(row)]
        return task_format.sort_tasks([task for task in rows if task is not None])

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
        if any(a.get("unique_id") == body["unique_id"] for a in self._row(task.task_id)["annotations"]):
            return
        self.annotate(task.task_id, body)

    def harvest(
        self, project: int, *, since: datetime | None = None, consensus: Consensus = "latest"
    ) -> list[Harvest]:
        """See Studio.harvest."""
        self._project(project)
        return harvesting.read(self._rows(project), since, consensus)

    def set_agreement(self, project: int, agreement: Mapping[str, float]) -> None:
        """See Studio.set_agreement."""
        self._project(project)
        for row in self._rows(project):
            row["data"] = task_format.with_agreement(row["data"], agreement)
        self._save()

    # What people do on the page besides submitting once.

    def annotate(self, task_id: int, annotation: Json) -> int:
        """Add an annotation as Label Studio stores it, by annotator 0 unless it says whose it is.

        Returns:
            Its number.
        """
        row = self._row(task_id)
        given = {"was_cancelled": False, "completed_by": 0, **annotation}
        added = {**given, "id": self._next_id(), "updated_at": self._stamp(row)}
        row["annotations"].append(added)
        self._save()
        return int(added["id"])

    def change(self, annotation_id: int, **fields: Any) -> None:
        """Edit an annotation."""
        row, annotation = self._annotation(annotation_id)
        annotation.update(fields, updated_at=self._stamp(row))
        self._save()

    def take_back(self, annotation_id: int) -> None:
        """Delete an annotation."""
        row, annotation = self._annotation(annotation_id)
        row["annotations"].remove(annotation)
        self._stamp(row)
        self._save()

    def _annotation(self, annotation_id: int) -> tuple[Json, Json]:
        """With the row of its task."""
        return next(
            (row, a) for row in self._state["tasks"] for a in row["annotations"] if a["id"] == annotation_id
        )

    def _row(self, task_id: int) -> Json:
        row = next((row for row in self._state["tasks"] if row["id"] == task_id), None)
        if row is None:
            raise StudioError(f"task {task_id} does not exist", "Ask for the open tasks again.")
        return row  # type: ignore[no-any-return]

    def _stamp(self, row: Json) -> str:
        """Mark a task as changed now."""
        row["updated_at"] = self._now().isoformat()
        return str(row["updated_at"])

    def _project(self, project: int) -> Json:
        found = next((p for p in self._state["projects"] if p["id"] == project), None)
        if found is None:
            raise StudioError(f"project {project} does not exist", "Open the project again.")
        return dict(found)

    def _rows(self, project: int) -> list[Json]:
        return [row for row in self._state["tasks"] if row["project"] == project]

    def _find(self, title: str, owner: str) -> Json | None:
        same = [p for p in self._state["projects"] if p["title"] == title]
        index = select_project([p.get("description", "") for p in same], title, owner)
        return None if index is None else same[index]

    def _rewrite(self, project: int, change: ClassChange, progress: CountCallback | None) -> None:
        total = sum(change.annotations.values()) + sum(change.pre_annotations.values())
        done = 0
        for row in self._rows(project):
            for kind in ("annotations", "predictions"):
                for one in row[kind]:
                    drop = kind == "predictions" and task_format.is_open(row)
                    after = change.rewrite(one["result"], drop=drop)
                    if after is not None:
                        one["result"] = after
                        done += 1
                        if kind == "annotations":
                            one["updated_at"] = self._stamp(row)
                        if progress:
                            progress(min(done, total), total)

    def _next_id(self) -> int:
        self._state["last_id"] += 1
        return int(self._state["last_id"])

    def _save(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        beside.write_text(json.dumps(self._state))
        beside.replace(self._path)
