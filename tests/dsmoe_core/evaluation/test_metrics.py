"""The metrics of evaluation.json."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scenes import CLASSES, Scene, labelled, prediction, random_scene

from dsmoe_core.evaluation.bootstrap import resample_counts
from dsmoe_core.evaluation.coco_metrics import evaluate
from dsmoe_core.evaluation.metrics import EvaluationTables, compare_map, compute_metrics, evaluation_tables
from dsmoe_core.schema import Box

BOX = Box(10, 10, 50, 50)


def tables_of(scene: Scene, resamples: int = 30) -> EvaluationTables:
    return evaluation_tables(
        *scene, CLASSES, resample_counts(len(scene[1]), resamples, 0), lambda done, total: None
    )


def metrics_of(scene: Scene, given: float = 0.3) -> dict[str, Any]:
    return compute_metrics(tables_of(scene), resample_counts(len(scene[1]), 30, 0), given=given, seed=0)


def test_metrics_equal_those_of_evaluate_and_are_consistent() -> None:
    detections, truth = random_scene(2, images=20)
    metrics = metrics_of((detections, truth))
    expected = evaluate(detections.values(), truth, CLASSES)
    total = metrics["total"]
    assert (total["map50"], total["map"]) == (expected.map50, expected.map)
    assert total["best"]["threshold"] == metrics["threshold"] == expected.threshold
    assert total["best"]["f1"] == expected.f1
    assert total["best"]["f1"] >= total["given"]["f1"]
    assert total["given"]["threshold"] == 0.3
    for rows in (metrics["classes"], metrics["sizes"]):
        assert sum(row["boxes"] for row in rows) == total["boxes"]
        for key in ("true_positives", "false_positives", "false_negatives"):
            assert sum(row["best"][key] for row in rows) == total["best"][key]
    for row in metrics["classes"]:
        assert row["map50"] == expected.per_class[row["name"]].map50
        assert sum(row["curve"]["precision"]) / 101 == pytest.approx(row["map50"], abs=1e-6)
        assert row["own_best"]["f1"] >= row["best"]["f1"]
    table = metrics["confusion"]["table"]
    assert sum(map(sum, table[:-1])) == total["boxes"]
    assert sum(table[i][i] for i in range(len(CLASSES))) == total["best"]["true_positives"]


@pytest.mark.parametrize("name", ["map50", "map", "precision", "recall", "f1"])
def test_interval_contains_the_metric(name: str) -> None:
    total = metrics_of(random_scene(2, images=20))["total"]
    low, high = total[f"{name}_ci95"] if name.startswith("map") else total["ci95"][name]
    value = total.get(name, total["best"].get(name))
    assert low < value < high


def keys(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for one in value.values() for key in keys(one)}
    return {key for one in value for key in keys(one)} if isinstance(value, list) else set()


def test_undefined_metrics_are_absent() -> None:
    row = (BOX, "spur", 0.9)
    no_truth = metrics_of(({"p": prediction("p", row)}, [labelled("p")]))
    no_detections = metrics_of(({}, [labelled("p", (BOX, "spur"))]))
    neither = metrics_of(({}, [labelled("p")]))
    for metrics in (no_truth, no_detections, neither):
        text = json.dumps(metrics, allow_nan=False)
        assert "null" not in text
        assert metrics["threshold"] == 0.3
        assert "best" not in keys(metrics)
    assert not {"map50", "map", "recall", "curve"} & keys(no_truth)
    assert no_truth["total"]["given"]["precision"] == 0
    assert (no_detections["total"]["map50"], no_detections["total"]["given"]["recall"]) == (0, 0)
    assert "precision" not in no_detections["total"]["given"]
    assert not {"error", "scaling"} & keys(no_detections["calibration"])
    assert not {"map50", "precision", "recall", "f1"} & keys(neither)


def test_class_without_boxes_has_no_map() -> None:
    metrics = metrics_of(({"p": prediction("p", (BOX, "hole", 0.9))}, [labelled("p", (BOX, "spur"))]))
    (hole,) = [row for row in metrics["classes"] if row["name"] == "hole"]
    assert (hole["boxes"], hole["detections"], hole["given"]["false_positives"]) == (0, 1, 1)
    assert "map50" not in hole
    assert metrics["total"]["map50"] == 0


def test_two_models_are_compared_on_the_same_resamples() -> None:
    detections, truth = random_scene(2, images=20)
    perfect = {
        p.image.key: prediction(p.image.key, *((a.box, a.label, 0.9) for a in p.annotations)) for p in truth
    }
    first, second = tables_of((perfect, truth)), tables_of((detections, truth))
    metrics = compare_map(first, second)
    for name in ("map50", "map"):
        row = metrics[name]
        assert row["this"] == pytest.approx(1)
        assert row["delta"] == row["this"] - row["other"]
        assert 0 < row["ci95"][0] < row["delta"] < row["ci95"][1]
    assert compare_map(tables_of(({}, [labelled("p")])), tables_of(({}, [labelled("p")]))) == {}
