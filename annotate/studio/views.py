"""The saved views (tabs) of every project in Label Studio, and their filters."""

from __future__ import annotations

from typing import Final

from annotate.studio.api import Api
from annotate.studio.controls import ImageChoice
from annotate.studio.convert import Json
from annotate.studio.task_format import BLIND
from annotate.studio.task_query import OPEN

QUEUE: Final = "Labelling queue"
DISAGREEMENTS: Final = "Disagreements"
NEEDS_EXPERT: Final = "Needs an expert"
LABEL_ERRORS: Final = "Label errors"
BLIND_AUDIT: Final = "Blind audit"
ALL_TASKS: Final = "All tasks"

_HIDDEN = [
    f"tasks:{column}"
    for column in (
        *("id", "inner_id", "completed_at", "created_at", "updated_at", "updated_by", "draft_exists"),
        *("annotators", "avg_lead_time", "annotations_ids", "annotations_results", "cancelled_annotations"),
        *("predictions_results", "predictions_score", "predictions_model_versions", "total_predictions"),
        *("file_upload", "storage_filename", "data.key", "data.width", "data.height", "data.queue"),
        *("data.name", "data.round", "data.rank", "data.arm", "data.audit", "data.agreement"),
        "data.label_error",
    )
]


def _filter(column: str, operator: str, kind: str, value: str) -> Json:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


FILTERS: Final[dict[str, list[Json]]] = {
    QUEUE: [*OPEN],
    DISAGREEMENTS: [_filter("data.agreement", "less", "Number", "1")],
    NEEDS_EXPERT: [_filter("annotations_results", "contains", "String", ImageChoice.NEEDS_EXPERT)],
    LABEL_ERRORS: [_filter("data.label_error", "greater", "Number", "0")],
    BLIND_AUDIT: [_filter("data.audit", "equal", "String", BLIND)],
    ALL_TASKS: [],
}


def ensure_views(api: Api, project: int) -> None:
    """Create the missing views. Existing views keep the changes that users made."""
    common = {
        "type": "list",
        "target": "tasks",
        "ordering": ["tasks:data.queue"],
        "hiddenColumns": {"explore": _HIDDEN, "labeling": _HIDDEN},
    }
    with api.client(f"create the views of project {project}") as sdk:
        existing = {view.data.get("title") for view in sdk.views.list(project=project)}
        for title, items in FILTERS.items():
            if title not in existing:
                filters = {"conjunction": "and", "items": items}
                sdk.views.create(project=project, data={**common, "title": title, "filters": filters})
