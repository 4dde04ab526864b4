"""Annotation effort with chosen thresholds against one fixed score, on made-up detections."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scenes import labelled, prediction

from dsmoe_core.schema import Box
from pipelines.benchmarks.effort import measure_effort
from pipelines.workspace.annotation_time import CorrectionSeconds

BOX = Box(20, 20, 60, 60)


def test_chosen_thresholds_hide_what_is_wrong_and_show_what_is_right() -> None:
    """Class a is right at every score, class b at none, whatever the score says."""
    rng = np.random.default_rng(0)
    truth, predictions = [], {}
    for i in range(80):
        key, label = f"i{i}", "ab"[i % 2]
        truth.append(labelled(key, *([(BOX, "a")] if label == "a" else [])))
        predictions[key] = prediction(key, (BOX, label, float(rng.uniform(0.1, 0.6))))
    measured = measure_effort(predictions, truth, CorrectionSeconds(), seed=0, resamples=200)
    rows = measured["rows"]
    assert rows["chosen"]["deleted"] == pytest.approx(0.0, abs=0.05)
    assert rows["chosen"]["added"] == pytest.approx(0.0, abs=0.1)
    assert rows["fixed"]["score"] == 0.3
    assert rows["fixed"]["deleted"] == pytest.approx(0.5, abs=0.15)
    assert rows["no pre-annotations"] == {
        **dict.fromkeys(("accepted", "moved", "relabelled", "deleted")),
        "shown": 0,
        "added": 1.0,
        "seconds_per_image": CorrectionSeconds().added / 2,
    }
    assert measured["chosen_minus_fixed"]["ci95"][1] < 0
    for points in measured["thresholds"]:
        assert points["a"] < 0.2
        assert points["b"] > 0.5
    assert json.loads(json.dumps(measured)) == measured


def test_shares_add_up() -> None:
    truth = [labelled(f"i{i}", (BOX, "a"), (Box(100, 100, 140, 140), "a")) for i in range(6)]
    predictions = {
        p.image.key: prediction(p.image.key, (BOX, "a", 0.9), (Box(150, 0, 190, 40), "a", 0.8)) for p in truth
    }
    row = measure_effort(predictions, truth, CorrectionSeconds(), seed=0, resamples=50)["rows"]["fixed"]
    assert row["shown"] == 12
    assert row["accepted"] + row["moved"] + row["relabelled"] + row["deleted"] == pytest.approx(1)
    assert (row["accepted"], row["deleted"], row["added"]) == (0.5, 0.5, 0.5)
