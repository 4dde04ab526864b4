"""The real Label Studio behind the Studio protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from annotate.studio import harvest as harvesting
from annotate.studio import prelabel
from annotate.studio.api import Api
from annotate.studio.controls import CONTROL
from annotate.studio.convert import Json
from annotate.studio.label_config import label_config
from annotate.studio.protocol import Connection, CountProgress, OpenTask, Region, Several, Task
from dsmoe_core.errors import StudioError
from dsmoe_core.schema import Harvest, Vocabulary

VIEW, VIEW_OF_ALL = "Most useful first", "Everything"
_BATCH = 100  # tasks a call: a tenth of a second, so that a progress bar moves
_OPEN = {
    "conjunction": "and",
    "items": [
        {"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": "0"},
        {"filter": "filter:tasks:cancelled_annotations", "operator": "equal", "type": "Number", "value": "0"},
    ],
}
_ALL: Json = {"conjunction": "and", "items": []}
_COLUMNS_HIDDEN = [
    *(
        "tasks:id",
        "tasks:completed_at",
        "tasks:annotators",
        "tasks:avg_lead_time",
        "tasks:annotations_results",
    ),
    *("tasks:predictions_results", "tasks:predictions_model_versions", "tasks:file_upload"),
    *(
        "tasks:storage_filename",
        "tasks:created_at",
        "tasks:updated_at",
        "tasks:updated_by",
        "tasks:draft_exists",
    ),
    *("tasks:annotations_ids", "tasks:inner_id", "tasks:predictions_score", "tasks:cancelled_annotations"),
    *(
        "tasks:total_predictions",
        "tasks:data.key",
        "tasks:data.width",
        "tasks:data.height",
        "tasks:data.queue",
    ),
    *("tasks:data.name", "tasks:data.round", "tasks:data.rank", "tasks:data.arm"),
]


class LabelStudio:
    """Obeys Studio.

    The label stream serves tasks in the order of their numbers ("sequential"), and the saved view sorts by
    ``data.queue``; tasks are sent most useful first, so both show the same order. Label Studio's own
    "uncertainty sampling" would not do: it hides tasks without pre-labels behind all others.

    Args:
        connection: where the server is.
        timeout: seconds until a call counts as hung.
    """

    def __init__(self, connection: Connection, *, timeout: float = 120.0) -> None:
        self.connection = connection
        self._api = Api(connection, timeout=timeout)
        self._classes: dict[int, frozenset[str]] = {}

    def ensure_project(self, title: str, vocabulary: Vocabulary) -> int:
        """See Studio.ensure_project."""
        prelabel.check_title(title)
        config = label_config(vocabulary)
        with self._api.asked_to(f"list the projects called {title!r}") as sdk:
            found = list(sdk.projects.list(title=title, page_size=1000, include="id,title,label_config"))
        same = sorted((p for p in found if p.title == title), key=lambda p: int(p.id))
        if same:
            project = int(same[0].id)
            self._change_classes(project, same[0].label_config, config, vocabulary)
        else:
            with self._api.asked_to(f"make the project {title!r}") as sdk:
                made = sdk.projects.create(title=title, label_config=config, sampling="Sequential sampling")
            project = int(made.id)
        self._classes[project] = frozenset(vocabulary.names)
        self._ensure_views(project)
        return project

    def push(
        self, project: int, tasks: Sequence[Task], *, progress: CountProgress | None = None
    ) -> dict[str, int]:
        """See Studio.push. The pictures must lie in a sub-folder of the connection's document root."""
        classes = self._classes_of(project)
        bodies = {
            t.picture.key: prelabel.task_json(t, self._address(t.picture.path), classes)
            for t in sorted(tasks, key=lambda t: (t.round, t.rank))
        }
        for folder in sorted({_folder(t.picture.path) for t in tasks}):
            self._ensure_storage(project, folder)
        ids = self._ids_by_key(project)
        known = [key for key in bodies if key in ids]
        new = [key for key in bodies if key not in ids]
        if known:
            self._refresh(project, {key: bodies[key] for key in known})
        for start in range(0, len(new), _BATCH):
            if progress:
                progress(len(known) + start, len(bodies))
            batch = new[start : start + _BATCH]
            ids.update(zip(batch, self._import(project, [bodies[k] for k in batch]), strict=True))
        if progress:
            progress(len(bodies), len(bodies))
        self._show_version(project, list(bodies.values()))
        return {t.picture.key: ids[t.picture.key] for t in tasks}

    def open_tasks(self, project: int) -> list[OpenTask]:
        """See Studio.open_tasks."""
        rows = (prelabel.open_task(row) for row in self._open_rows(project))
        return prelabel.in_order([task for task in rows if task is not None])

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
        prelabel.check_labels(regions, self._classes_of(project), f"task {task.task_id}")
        body = prelabel.annotation_json(task, regions, seconds, skipped)
        with self._api.asked_to(f"take the annotation of task {task.task_id}", once=True) as sdk:
            sdk.annotations.create(task.task_id, **body)

    def harvest(
        self, project: int, *, since: datetime | None = None, several: Several = "latest"
    ) -> list[Harvest]:
        """See Studio.harvest."""
        filters: Json = {
            "conjunction": "or",
            "items": [{**item, "operator": "greater"} for item in _OPEN["items"]],  # type: ignore[dict-item]
        }
        if since is not None:
            moment = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            changed = {
                "filter": "filter:tasks:updated_at",
                "operator": "greater_or_equal",
                "type": "Datetime",
            }
            filters = {"conjunction": "and", "items": [{**changed, "value": moment}]}
        # Naming the fields here ("include") would turn every annotation into its bare id.
        return harvesting.read(self._rows(project, filters, fields="all"), since, several)

    # ---- tasks

    def _import(self, project: int, bodies: Sequence[Json]) -> list[int]:
        with self._api.asked_to(f"import tasks into project {project}") as sdk:
            answer = sdk.projects.import_tasks(project, request=bodies, return_task_ids=True).model_dump()
        ids, taken = [int(i) for i in answer.get("task_ids", [])], answer.get("prediction_count")
        shown = sum(len(body["predictions"]) for body in bodies)
        if len(ids) != len(bodies) or taken != shown:
            raise StudioError(
                f"Label Studio took {len(ids)} of {len(bodies)} tasks and {taken} of {shown} sets of "
                "pre-labels",
                "Run this again: what is missing is sent again.",
            )
        return ids

    def _refresh(self, project: int, bodies: dict[str, Json]) -> None:
        """Bring tasks that are there already, and still open, up to date."""
        predictions: list[Json] = []
        for row in self._open_rows(project):
            body = bodies.get(row["data"].get("key", ""))
            if body is None:
                continue
            if row["data"] != body["data"]:
                with self._api.asked_to(f"update task {row['id']}") as sdk:
                    sdk.tasks.update(str(row["id"]), data=body["data"])
            predictions += [{**p, "task": row["id"]} for p in prelabel.missing(row, body)]
        if not predictions:
            return
        with self._api.asked_to(f"import pre-labels into project {project}") as sdk:
            created = sdk.projects.import_predictions(project, request=predictions).created
        if created != len(predictions):
            raise StudioError(
                f"Label Studio took {created} of {len(predictions)} sets of pre-labels and dropped the rest",
                "Run this again: what is missing is sent again.",
            )

    def _ids_by_key(self, project: int) -> dict[str, int]:
        """The tasks that are there, by picture key.

        Killed at the wrong moment, an import can go on in the server while the next one begins: of two open
        tasks with one key, the later is removed here.
        """
        ids: dict[str, list[int]] = {}
        for row in self._rows(project, None, fields="task_only", include="id,data"):
            if "key" in row["data"]:
                ids.setdefault(row["data"]["key"], []).append(int(row["id"]))
        doubled = {key for key, several in ids.items() if len(several) > 1}
        still_open = {int(row["id"]) for row in self._open_rows(project)} if doubled else set()
        for key in doubled:
            keep = min(ids[key], key=lambda i: (i in still_open, i))
            for extra in still_open.intersection(ids[key]) - {keep}:
                with self._api.asked_to(f"delete task {extra}") as sdk:
                    sdk.tasks.delete(str(extra))
            ids[key] = [keep]
        return {key: several[0] for key, several in ids.items()}

    def _open_rows(self, project: int) -> list[Json]:
        return self._rows(project, _OPEN, fields="all", include="id,data,predictions")

    def _rows(self, project: int, filters: Json | None, **fields: str) -> list[Json]:
        """All tasks that pass, in the order of their numbers. All of them at once: what is changed on the way
        would shift the pages."""
        query = json.dumps({"filters": filters} if filters else {})
        with self._api.asked_to(f"list the tasks of project {project}") as sdk:
            found = sdk.tasks.list(project=project, page_size=_BATCH, query=query, **fields)
            return [task.model_dump(mode="json") for task in found]

    def _show_version(self, project: int, bodies: Sequence[Json]) -> None:
        """Name the newest pre-labels as the project's: the label stream shows no others."""
        versions = [p["model_version"] for body in bodies for p in body["predictions"]]
        if versions:
            with self._api.asked_to(f"show the newest pre-labels of project {project}") as sdk:
                sdk.projects.update(project, model_version=versions[-1])

    # ---- project

    def _change_classes(self, project: int, old: str, new: str, vocabulary: Vocabulary) -> None:
        if old == new:
            return
        # Asked first: the change itself would go through and leave annotations with a class that is no more.
        gone = self._classes_of(project) - set(vocabulary.names)
        if gone:
            prelabel.check_kept(self._used(project) & gone, vocabulary.names)
        with self._api.asked_to(f"change the classes of project {project}") as sdk:
            sdk.projects.update(project, label_config=new)

    def _used(self, project: int) -> set[str]:
        harvested = self.harvest(project)
        return {annotation.label for h in harvested for annotation in h.annotations}

    def _classes_of(self, project: int) -> frozenset[str]:
        if project not in self._classes:
            with self._api.asked_to(f"open project {project}") as sdk:
                config = sdk.projects.get(project).parsed_label_config
            self._classes[project] = frozenset(config.get(CONTROL, {}).get("labels", []))
        return self._classes[project]

    def _ensure_views(self, project: int) -> None:
        """What is still to do comes first; what is done has a tab of its own."""
        common = {
            "type": "list",
            "target": "tasks",
            "ordering": ["tasks:data.queue"],
            "hiddenColumns": {"explore": _COLUMNS_HIDDEN, "labeling": _COLUMNS_HIDDEN},
        }
        with self._api.asked_to(f"keep the views of project {project}") as sdk:
            there = {view.data.get("title") for view in sdk.views.list(project=project)}
            for title, filters in ((VIEW, _OPEN), (VIEW_OF_ALL, _ALL)):
                if title not in there:
                    sdk.views.create(project=project, data={**common, "title": title, "filters": filters})

    def _ensure_storage(self, project: int, folder: Path) -> None:
        """A row that lets the server show this folder's pictures; without it each one is a 404."""
        with self._api.asked_to(f"show the pictures in {folder} in project {project}") as sdk:
            local = sdk.import_storage.local
            if not any(Path(row.path) == folder for row in local.list(project=project)):
                local.create(project=project, title=folder.name, path=str(folder), use_blob_urls=True)

    def _address(self, path: Path) -> str:
        root, folder = self.connection.document_root, _folder(path)
        if root not in folder.parents:
            raise StudioError(
                f"picture {path} does not lie in a sub-folder of {root}, all that Label Studio may show",
                "Start Label Studio with the folder above the pictures' as its document root.",
            )
        return f"/data/local-files/?d={quote((folder / path.name).relative_to(root).as_posix())}"


def _folder(path: Path) -> Path:
    return path.absolute().parent.resolve()
