"""Vega-Lite specifications of the charts."""

from __future__ import annotations

import json
from typing import Any

from nasty_names import NAMES

from tests.ui.snapshots import row
from ui.charts import corrections, heat_map, learning_curve


def test_learning_curve_has_a_point_per_metric_and_evaluated_round() -> None:
    rounds = [
        row(0),
        row(1, map50=0.6, promoted=False),
        row(2, map50=None, map=None, promoted=None, state="open"),
    ]
    chart = learning_curve(rounds)
    assert chart is not None
    points = chart["data"]["values"]
    assert [(p["boxes"], p["metric"], p["value"], p["decision"]) for p in points] == [
        (20, "mAP@.5", 0.5, "promoted"),
        (20, "mAP@.5:.95", 0.25, "promoted"),
        (40, "mAP@.5", 0.6, "refused"),
        (40, "mAP@.5:.95", 0.25, "refused"),
    ]
    json.dumps(chart)


def test_no_learning_curve_before_the_first_model() -> None:
    assert learning_curve([]) is None
    assert learning_curve([row(0, map50=None, map=None, promoted=None)]) is None


def test_corrections_are_shares_per_round_with_pre_annotations() -> None:
    chart = corrections([row(0), row(1, accepted=6, moved=2, relabelled=1, deleted=1)])
    assert chart is not None
    bars = chart["data"]["values"]
    assert {bar["round"] for bar in bars} == {"round 1"}
    assert [(bar["outcome"], bar["share"]) for bar in bars] == [
        ("accepted", 0.6),
        ("moved", 0.2),
        ("relabelled", 0.1),
        ("deleted", 0.1),
    ]
    json.dumps(chart)


def test_no_corrections_without_pre_annotations() -> None:
    assert corrections([row(0)]) is None


def fields(spec: Any) -> set[str]:
    """All field names of a specification."""
    if isinstance(spec, list):
        return set().union(*map(fields, spec))
    if not isinstance(spec, dict):
        return set()
    own = {spec["field"]} if "field" in spec else set()
    return own.union(*(fields(value) for key, value in spec.items() if key != "data"))


def test_class_names_are_values_and_never_names_of_fields() -> None:
    """Vega reads dots and brackets in the name of a field as a path."""
    chart = heat_map({name: [0.25, 0.75] for name in NAMES})
    assert {cell["class"] for cell in chart["data"]["values"]} == set(NAMES)
    assert chart["encoding"]["y"]["sort"] == list(NAMES)
    charts = (chart, learning_curve([row(0)]), corrections([row(1, accepted=1)]))
    assert all(field.isidentifier() for chart in charts for field in fields(chart))


def test_heat_map_has_a_cell_per_class_and_expert_in_order() -> None:
    chart = heat_map({"dent": [0.0, 1.0], "scratch": [0.5, 0.5]})
    cells = chart["data"]["values"]
    assert cells[1] == {"class": "dent", "expert": "expert 2", "share": 1.0}
    assert len(cells) == 4
    assert chart["encoding"]["y"]["sort"] == ["dent", "scratch"]
    json.dumps(chart)
