"""Reading a project's tasks from the real server: page after page, so that what is read need not be held."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from annotate.studio.api import Api
from annotate.studio.convert import Json

_ID = "filter:tasks:id"


@dataclass(frozen=True, slots=True)
class TaskFields:
    """Which parts of a task are read, and how many tasks a call.

    Without ``include`` the server works out columns that we have no use for, and takes more than twice as
    long for twice as many tasks.
    """

    fields: Literal["all", "task_only"]
    include: str
    page: int
    expand: str | None = None


DATA: Final = TaskFields("task_only", "id,data", 1000)
PRE_ANNOTATIONS: Final = TaskFields("all", "id,data,predictions", 200)
# Unless they are expanded, annotations come as bare numbers.
EVERYTHING: Final = TaskFields("all", "id,data,updated_at,annotations,predictions", 200, "annotations")


def count_filter(count: Literal["annotations", "cancelled"], operator: Literal["equal", "greater"]) -> Json:
    """A filter: that the number of annotations, or of skips, is zero, or above it."""
    name = {"annotations": "total_annotations", "cancelled": "cancelled_annotations"}[count]
    return {"filter": f"filter:tasks:{name}", "operator": operator, "type": "Number", "value": "0"}


def updated_since(moment: datetime) -> Json:
    """A filter: that the server touched the task at this moment or later.

    Args:
        moment: with a time zone; by the server's clock.
    """
    value = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "filter": "filter:tasks:updated_at",
        "operator": "greater_or_equal",
        "type": "Datetime",
        "value": value,
    }


OPEN: Final = (count_filter("annotations", "equal"), count_filter("cancelled", "equal"))  # and
ANNOTATED: Final = (count_filter("annotations", "greater"), count_filter("cancelled", "greater"))  # or


def query_tasks(
    api: Api,
    project: int,
    what: TaskFields,
    filters: Sequence[Mapping[str, Any]] = (),
    conjunction: Literal["and", "or"] = "and",
) -> Iterator[Json]:
    """All tasks that pass the filters, in the order of their numbers.

    Each page asks for the numbers above the last one seen. So nothing is missed or read twice where tasks
    come, go, or pass the filters no more while they are read.

    Raises:
        StudioError: the server refuses, hangs or is gone.
    """
    above = 0
    while True:
        items = _above(filters, conjunction, above)
        query = {"filters": {"conjunction": conjunction, "items": items}, "ordering": ["tasks:id"]}
        params: Json = {
            "project": project,
            "page_size": what.page,
            "query": json.dumps(query),
            "fields": what.fields,
            "include": what.include,
        }
        if what.expand:
            params["expand"] = what.expand
        page = api.request(f"list the tasks of project {project}", "GET", "api/tasks/", params=params)[
            "tasks"
        ]
        yield from page
        if len(page) < what.page:
            return
        above = int(page[-1]["id"])


def _above(filters: Sequence[Mapping[str, Any]], conjunction: str, number: int) -> list[Json]:
    """The filters, each or all together with: its number is above this one."""
    above = {"filter": _ID, "operator": "greater", "type": "Number", "value": number}
    if conjunction == "or":
        return [{**item, "child_filter": above} for item in filters]
    return [*(dict(item) for item in filters), above]
