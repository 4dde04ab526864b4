"""Reading annotations as people leave them: several, skipped, odd, or not ours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from annotate.studio.controls import FRAME, IMAGE_CHOICE
from annotate.studio.convert import to_result
from annotate.studio.harvest import harvest_task, outcomes, read
from annotate.studio.protocol import Origin, Region
from annotate.studio.task_format import open_task
from dsmoe_core.schema import Box, Outcome

PRE = Region("p1", Box(10.0, 10.0, 50.0, 50.0), "open", "prediction", 0.5)


def row(*annotations: dict[str, Any], key: str | None = "k", **more: Any) -> dict[str, Any]:
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


def test_of_several_annotations_the_last_changed_counts() -> None:
    got = harvest_task(row(annotation(2, 1, region()), annotation(1, 9, region(label="spur"))))
    assert got is not None
    assert (got.annotation_id, [a.label for a in got.annotations]) == (1, ["spur"])
    assert got.updated_at == datetime(2026, 1, 1, 0, 9, tzinfo=UTC)


def test_a_later_skip_outweighs() -> None:
    got = harvest_task(row(annotation(1, 1, region()), annotation(2, 2, region(), was_cancelled=True)))
    assert got is not None
    assert (got.skipped, got.annotations) == (True, ())


def test_people_whose_accounts_were_deleted_are_told_apart() -> None:
    """The server then says ``null`` for each of them."""
    people = [region("a", origin="manual"), region("b", origin="manual", shift=50.0)]
    gone = [annotation(n, n, one, completed_by=None) for n, one in enumerate(people, start=1)]
    got = harvest_task(row(*gone), "union")
    assert got is not None
    assert (len(got.annotations), got.annotators, got.agreement) == (2, 2, 0.0)


@pytest.mark.parametrize("odd", [row(), row(annotation(1, 1), key=None)])
def test_what_is_not_annotated_or_not_ours_is_left_out(odd: dict[str, Any]) -> None:
    assert harvest_task(odd) is None


def test_a_task_of_somebody_else_may_have_a_key_of_its_own() -> None:
    odd = row(annotation(1, 1)) | {"data": {"key": "A 17", "image": "/data/upload/a.png"}}
    assert harvest_task(odd) is None
    assert open_task(odd) is None


@pytest.mark.parametrize(
    ("left", "outcome"),
    [
        (region(), Outcome.ACCEPTED),
        (region(origin="prediction-changed"), Outcome.ACCEPTED),  # changed, and changed back
        (region(origin="prediction-changed", shift=0.01), Outcome.ACCEPTED),  # the screen's rounding
        (region(origin="prediction-changed", shift=1.0), Outcome.MOVED),
        (region(origin="prediction-changed", label="spur"), Outcome.RELABELLED),
        (region(origin="prediction-changed", label="spur", shift=9.0), Outcome.RELABELLED),
        (region(origin="manual", shift=9.0), Outcome.MOVED),  # its id tells where it comes from
    ],
)
def test_one_box_has_one_outcome(left: Region, outcome: Outcome) -> None:
    assert outcomes([PRE], [left]) == dict.fromkeys(Outcome, 0) | {outcome: 1}


def test_without_a_parent_the_region_ids_tell_which_pre_annotations_were_shown() -> None:
    got = harvest_task(row(annotation(1, 1, region(), parent_prediction=None)))
    assert got is not None
    assert (got.version, got.outcomes[Outcome.ACCEPTED]) == ("m+b", 1)


def test_drawn_from_nothing_counts_as_added_and_blames_no_pre_annotation() -> None:
    got = harvest_task(row(annotation(1, 1, region("new", origin="manual"), parent_prediction=None)))
    assert got is not None
    assert (got.version, got.outcomes[Outcome.ADDED], got.outcomes[Outcome.DELETED]) == (None, 1, 0)


def test_a_region_without_a_class_is_named_and_the_rest_counts(caplog: pytest.LogCaptureFixture) -> None:
    odd = annotation(1, 1, region())
    odd["result"].append(
        {"id": "zz", "type": "rectangle", "value": {"x": 1, "y": 1, "width": 2, "height": 2}}
    )
    got = harvest_task(row(odd))
    assert got is not None
    assert len(got.annotations) == 1
    assert "task 7: region zz" in caplog.text


def frame(label: str = "open") -> dict[str, Any]:
    """What a smart box was drawn around, still there when the annotation is handed in."""
    return {**to_result(region("f", label, "manual", shift=3.0), 100, 100), "from_name": FRAME}


def no_defect() -> dict[str, Any]:
    return {"id": "c", "type": "choices", "from_name": IMAGE_CHOICE, "value": {"choices": ["no defect"]}}


def test_a_left_over_smart_frame_is_no_box() -> None:
    answered = annotation(1, 1, region("new", origin="manual"), parent_prediction=None)
    answered["result"].append(frame())
    got = harvest_task(row(answered))
    assert got is not None
    assert (len(got.annotations), got.outcomes[Outcome.ADDED], got.labelled) == (1, 1, True)
    answered["result"].append(no_defect())
    got = harvest_task(row(answered))
    assert got is not None
    assert (got.doubt, got.note) == ("unsure", '(says "no defect", and has 1 boxes)')


@pytest.mark.parametrize(
    "left",
    [
        [frame()],
        [frame(), no_defect()],
        [frame(), to_result(region(label="spur"), 100, 100)],
        [frame(), to_result(region(shift=45.0), 100, 100)],
    ],
)
def test_a_smart_frame_without_a_box_is_a_doubt_and_never_no_defect(left: list[dict[str, Any]]) -> None:
    got = harvest_task(row(annotation(1, 1, result=left)))
    assert got is not None
    assert (got.labelled, got.doubt) == (False, "unsure")
    assert "open" not in [a.label for a in got.annotations if a.box.x1 < 50]
    if len(left) == 1:
        assert got.note == '(points at "open" with a smart tool, and has no such box there)'


def test_oldest_first_and_since() -> None:
    rows = [row(annotation(1, 9), key="late"), row(annotation(2, 1), key="early")]
    assert [h.key for h in read(rows)] == ["early", "late"]
    assert [h.key for h in read(rows, datetime(2026, 1, 1, 0, 9, tzinfo=UTC))] == ["late"]
