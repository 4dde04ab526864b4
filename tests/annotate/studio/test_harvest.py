"""Tests of reading annotated tasks: several annotators, skipped tasks, invalid regions, foreign tasks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from annotate.studio.controls import FRAME, IMAGE_CHOICE
from annotate.studio.convert import to_result
from annotate.studio.harvest import harvest_task, outcomes, read_harvests
from annotate.studio.protocol import Origin, Region
from annotate.studio.task_format import open_task
from dsmoe_core.schema import Box, Outcome

PRE = Region("p1", Box(10.0, 10.0, 50.0, 50.0), "open", "prediction", 0.5)


def task(*annotations: dict[str, Any], key: str | None = "k", **more: Any) -> dict[str, Any]:
    data = {"width": 100, "height": 100, "round": 1, "rank": 0} | ({"key": key} if key else {})
    prediction = {"id": 5, "model_version": "m+b", "result": [to_result(PRE, 100, 100)]}
    return {"id": 7, "data": data, "predictions": [prediction], "annotations": list(annotations), **more}


def annotation(identity: int, minute: int, *regions: Region, **more: Any) -> dict[str, Any]:
    return {
        "id": identity,
        "updated_at": f"2026-01-01T00:{minute:02d}:00.000000Z",
        "result": [to_result(r, 100, 100) for r in regions],
        "was_cancelled": False,
        "lead_time": 3,
        "parent_prediction": 5,
        "completed_by": 1,
        **more,
    }


def region(
    name: str = "p1", label: str = "open", origin: Origin = "prediction", shift: float = 0.0
) -> Region:
    return Region(name, Box(10.0 + shift, 10.0, 50.0 + shift, 50.0), label, origin, None)


def test_latest_annotation_counts() -> None:
    harvest = harvest_task(task(annotation(2, 1, region()), annotation(1, 9, region(label="spur"))))
    assert harvest is not None
    assert (harvest.annotation_id, [a.label for a in harvest.annotations]) == (1, ["spur"])
    assert harvest.updated_at == datetime(2026, 1, 1, 0, 9, tzinfo=UTC)


def test_later_skip_overrides_an_annotation() -> None:
    harvest = harvest_task(task(annotation(1, 1, region()), annotation(2, 2, region(), was_cancelled=True)))
    assert harvest is not None
    assert (harvest.skipped, harvest.annotations) == (True, ())


def test_annotators_with_deleted_accounts_are_counted_separately() -> None:
    """The server gives ``null`` for each of them."""
    regions = [region("a", origin="manual"), region("b", origin="manual", shift=50.0)]
    annotations = [annotation(n, n, r, completed_by=None) for n, r in enumerate(regions, start=1)]
    harvest = harvest_task(task(*annotations), "union")
    assert harvest is not None
    assert (len(harvest.annotations), harvest.annotators, harvest.agreement) == (2, 2, 0.0)


@pytest.mark.parametrize("ignored", [task(), task(annotation(1, 1), key=None)])
def test_open_and_foreign_tasks_are_ignored(ignored: dict[str, Any]) -> None:
    assert harvest_task(ignored) is None


def test_foreign_task_with_a_key_is_ignored() -> None:
    foreign = task(annotation(1, 1)) | {"data": {"key": "A 17", "image": "/data/upload/a.png"}}
    assert harvest_task(foreign) is None
    assert open_task(foreign) is None


@pytest.mark.parametrize(
    ("annotated", "outcome"),
    [
        (region(), Outcome.ACCEPTED),
        (region(origin="prediction-changed"), Outcome.ACCEPTED),  # changed and changed back
        (region(origin="prediction-changed", shift=0.01), Outcome.ACCEPTED),  # rounding to screen pixels
        (region(origin="prediction-changed", shift=1.0), Outcome.MOVED),
        (region(origin="prediction-changed", label="spur"), Outcome.RELABELLED),
        (region(origin="prediction-changed", label="spur", shift=9.0), Outcome.RELABELLED),
        (region(origin="manual", shift=9.0), Outcome.MOVED),  # matched by its id
    ],
)
def test_box_has_one_outcome(annotated: Region, outcome: Outcome) -> None:
    assert outcomes([PRE], [annotated]) == dict.fromkeys(Outcome, 0) | {outcome: 1}


def test_region_ids_identify_the_prediction_without_a_parent() -> None:
    harvest = harvest_task(task(annotation(1, 1, region(), parent_prediction=None)))
    assert harvest is not None
    assert (harvest.version, harvest.outcomes[Outcome.ACCEPTED]) == ("m+b", 1)


def test_box_drawn_by_hand_counts_as_added() -> None:
    harvest = harvest_task(task(annotation(1, 1, region("new", origin="manual"), parent_prediction=None)))
    assert harvest is not None
    assert (harvest.version, harvest.outcomes[Outcome.ADDED], harvest.outcomes[Outcome.DELETED]) == (
        None,
        1,
        0,
    )


def test_region_without_a_class_is_skipped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    invalid = annotation(1, 1, region())
    invalid["result"].append(
        {"id": "zz", "type": "rectangle", "value": {"x": 1, "y": 1, "width": 2, "height": 2}}
    )
    harvest = harvest_task(task(invalid))
    assert harvest is not None
    assert len(harvest.annotations) == 1
    assert "task 7: region zz" in caplog.text


def frame(label: str = "open") -> dict[str, Any]:
    """Prompt of the smart box that is still there when the annotation is submitted."""
    return {**to_result(region("f", label, "manual", shift=3.0), 100, 100), "from_name": FRAME}


def no_defect() -> dict[str, Any]:
    return {"id": "c", "type": "choices", "from_name": IMAGE_CHOICE, "value": {"choices": ["no defect"]}}


def test_smart_box_prompt_is_not_a_box() -> None:
    submitted = annotation(1, 1, region("new", origin="manual"), parent_prediction=None)
    submitted["result"].append(frame())
    harvest = harvest_task(task(submitted))
    assert harvest is not None
    assert (len(harvest.annotations), harvest.outcomes[Outcome.ADDED], harvest.labelled) == (1, 1, True)
    submitted["result"].append(no_defect())
    harvest = harvest_task(task(submitted))
    assert harvest is not None
    assert (harvest.doubt, harvest.note) == ("unsure", '("no defect" is selected, number of boxes: 1)')


@pytest.mark.parametrize(
    "results",
    [
        [frame()],
        [frame(), no_defect()],
        [frame(), to_result(region(label="spur"), 100, 100)],
        [frame(), to_result(region(shift=45.0), 100, 100)],
    ],
)
def test_smart_box_prompt_without_a_box_is_unsure_instead_of_no_defect(results: list[dict[str, Any]]) -> None:
    harvest = harvest_task(task(annotation(1, 1, result=results)))
    assert harvest is not None
    assert (harvest.labelled, harvest.doubt) == (False, "unsure")
    assert "open" not in [a.label for a in harvest.annotations if a.box.x1 < 50]
    if len(results) == 1:
        assert harvest.note == '(a smart tool marks "open" where there is no such box)'


def test_harvests_are_sorted_and_filtered_by_time() -> None:
    tasks = [task(annotation(1, 9), key="late"), task(annotation(2, 1), key="early")]
    assert [h.key for h in read_harvests(tasks)] == ["early", "late"]
    assert [h.key for h in read_harvests(tasks, datetime(2026, 1, 1, 0, 9, tzinfo=UTC))] == ["late"]
