"""Reads the tasks of a Label Studio project page by page, with filters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from annotate.studio.api import Api
from annotate.studio.convert import Json


@dataclass(frozen=True, slots=True)
class TaskFields:
    """Which fields of a task are read.

    Without ``include`` the server computes columns that are not needed, which takes more than twice as long.

    Attributes:
        fields, include, expand: parameters of the server's request.
        page: tasks per request.
    """

    fields: Literal["all", "task_only"]
    include: str
    page: int
    expand: str | None = None


DATA: Final = TaskFields("task_only", "id,data", 1000)
PREDICTIONS: Final = TaskFields("all", "id,data,predictions", 200)
ALL_FIELDS: Final = TaskFields(
    "all",
    "id,data,updated_at,annotations,predictions",
    200,
    "annotations",  # otherwise annotations are given as ids only
)


def count_filter(count: Literal["annotations", "cancelled"], operator: Literal["equal", "greater"]) -> Json:
    """Filter on the number of annotations or skips of a task: equal to zero, or greater than zero."""
    name = {"annotations": "total_annotations", "cancelled": "cancelled_annotations"}[count]
    return {"filter": f"filter:tasks:{name}", "operator": operator, "type": "Number", "value": "0"}


def updated_since(time: datetime) -> Json:
    """Filter on tasks that were updated at this time or later.

    Args:
        time: server clock, with a time zone.
    """
    value = time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "filter": "filter:tasks:updated_at",
        "operator": "greater_or_equal",
        "type": "Datetime",
        "value": value,
    }


OPEN: Final = (count_filter("annotations", "equal"), count_filter("cancelled", "equal"))
"""Filters of open tasks; join with "and"."""
ANNOTATED: Final = (count_filter("annotations", "greater"), count_filter("cancelled", "greater"))
"""Filters of annotated or skipped tasks; join with "or"."""


def query_tasks(
    api: Api,
    project: int,
    fields: TaskFields,
    filters: Sequence[Mapping[str, Any]] = (),
    conjunction: Literal["and", "or"] = "and",
) -> Iterator[Json]:
    """Yield all tasks that pass the filters, sorted by id.

    Each page starts after the last id of the page before. So no task is missed or read twice if tasks are
    added, deleted or changed meanwhile.

    Raises:
        StudioError: the server refused the request, timed out or cannot be reached.
    """
    last_id = 0
    while True:
        items = _after(filters, conjunction, last_id)
        query = {"filters": {"conjunction": conjunction, "items": items}, "ordering": ["tasks:id"]}
        params: Json = {
            "project": project,
            "page_size": fields.page,
            "query": json.dumps(query),
            "fields": fields.fields,
            "include": fields.include,
        }
        if fields.expand:
            params["expand"] = fields.expand
        response = api.request(f"list the tasks of project {project}", "GET", "api/tasks/", params=params)
        page = response["tasks"]
        yield from page
        if len(page) < fields.page:
            return
        last_id = int(page[-1]["id"])


def _after(filters: Sequence[Mapping[str, Any]], conjunction: str, last_id: int) -> list[Json]:
    """The filters, combined with the condition that the id is greater than ``last_id``."""
    after = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": last_id}
    if conjunction == "or":
        return [{**item, "child_filter": after} for item in filters]
    return [*(dict(item) for item in filters), after]
