"""Tests of reading annotated tasks: several annotators, skipped tasks, invalid regions, foreign tasks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.studio.controls import FRAME, IMAGE_CHOICE
from annotate.studio.convert import to_result
from annotate.studio.harvest import harvest_task, outcomes, read_harvests
from annotate.studio.protocol import Consensus, Origin, Region
from annotate.studio.task_format import open_task
from dsmoe_core.data.import_account import Conversion, Kind, Reason
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


UNLABELLED = {"id": "zz", "type": "rectangle", "value": {"x": 1, "y": 1, "width": 2, "height": 2}}
BROKEN: list[tuple[dict[str, Any], Reason]] = [
    (UNLABELLED, Reason.NO_CLASS),
    (UNLABELLED | {"type": "polygonlabels"}, Reason.NO_CLASS),
    ({**to_result(PRE, 100, 100), "id": "zz", "type": "keypointlabels"}, Reason.NO_BOX),
    ({"id": "zz", "type": "brushlabels", "value": {"rle": [], "brushlabels": ["open"]}}, Reason.WRONG_MASK),
]


@pytest.mark.parametrize(("result", "reason"), BROKEN)
@pytest.mark.parametrize("others", [0, 1])
def test_image_from_which_a_region_was_left_out_is_unsure(
    result: dict[str, Any], reason: Reason, others: int
) -> None:
    submitted = annotation(1, 1, *[region()] * others)
    submitted["result"].append(result)
    harvest = harvest_task(task(submitted))
    assert harvest is not None
    assert (harvest.labelled, harvest.doubt, len(harvest.annotations)) == (False, "unsure", others)
    assert "region zz" in harvest.note
    account = harvest.account
    assert account is not None
    assert account.is_balanced
    assert (account.boxes_in, account.boxes_taken, account.boxes_left_out) == (1 + others, 0, 1 + others)
    box, image = account.entries
    assert (box.kind, box.reason, box.where) == (Kind.BOX, reason, "task 7, annotation 1, region zz")
    assert (image.kind, image.reason, image.boxes) == (Kind.IMAGE, Reason.DOUBTFUL, others)


def test_only_an_image_that_was_submitted_empty_is_free_of_defects() -> None:
    harvest = harvest_task(task(annotation(1, 1)))
    assert harvest is not None
    assert (harvest.labelled, harvest.annotations) == (True, ())
    account = harvest.account
    assert account is not None
    assert (account.images_taken, account.images_without_box, account.boxes_in) == (1, 1, 0)


def test_turned_polygon_and_clipped_regions_are_boxes() -> None:
    results = [
        {**to_result(PRE, 100, 100), "id": "turned"},
        {"id": "poly", "type": "polygonlabels", "value": {"points": [[1, 1], [9, 1], [5, 9]]}},
        {**to_result(PRE, 100, 100), "id": "edge"},
    ]
    results[0]["value"] |= {"x": 50, "width": -40}
    results[1]["value"] |= {"polygonlabels": ["spur"]}
    results[2]["value"] |= {"x": 90, "width": 40}
    harvest = harvest_task(task(annotation(1, 1, result=results)))
    assert harvest is not None
    assert harvest.labelled
    corners = {a.box.corners for a in harvest.annotations}
    assert corners == {(10.0, 10.0, 50.0, 50.0), (1.0, 1.0, 9.0, 9.0), (90.0, 10.0, 100.0, 50.0)}
    account = harvest.account
    assert account is not None
    assert (account.boxes_in, account.boxes_taken, account.boxes_clipped) == (3, 2, 1)
    assert account.conversions == {Conversion.TURNED: 1, Conversion.POLYGON: 1}
    assert account.is_balanced


def test_skipped_image_is_left_out_of_the_account() -> None:
    harvest = harvest_task(task(annotation(1, 1, region(), was_cancelled=True)))
    assert harvest is not None
    assert harvest.account is not None
    assert harvest.account.is_balanced
    assert [entry.reason for entry in harvest.account.entries] == [Reason.SKIPPED]


@pytest.mark.parametrize("consensus", ["majority", "union"])
def test_left_out_region_of_one_of_three_annotators(consensus: Consensus) -> None:
    """The union has every box, so one that is missing leaves it in doubt; the majority has not drawn it."""
    broken = annotation(3, 3, completed_by=3, result=[UNLABELLED])
    annotations = [annotation(n, n, completed_by=n) for n in (1, 2)]
    harvest = harvest_task(task(*annotations, broken), consensus)
    assert harvest is not None
    assert harvest.labelled == (consensus == "majority")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["rectanglelabels", "ellipselabels", "polygonlabels", "cube"]),
            st.sampled_from([[], ["open"], ["open", "spur"]]),
            st.floats(-50, 150) | st.none(),
            st.floats(-50, 150),
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_account_is_balanced(drawn: list[tuple[str, list[str], float | None, float]], skipped: bool) -> None:
    results = [
        {"id": f"r{i}", "type": kind, "value": {"x": x, "y": 5, "width": size, "height": 9, kind: labels}}
        for i, (kind, labels, x, size) in enumerate(drawn)
    ]
    harvest = harvest_task(task(annotation(1, 1, result=results, was_cancelled=skipped)))
    assert harvest is not None
    account = harvest.account
    assert account is not None
    assert account.is_balanced
    assert account.images_in == 1
    assert account.boxes_in == (0 if skipped else len(drawn))
    assert harvest.labelled == (not skipped and account.boxes_left_out == 0)
    assert account.images_without_box == (harvest.labelled and not harvest.annotations)
    if harvest.labelled:
        assert len(harvest.annotations) == account.boxes_taken + account.boxes_clipped == len(drawn)


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
