"""Areas under learning curves, efforts to a share of the full accuracy, differences to random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmarks.simulation.plot import draw_curves
from pipelines.benchmarks.simulation.summary import area, effort_to, summarise


def cycle(boxes: float, map50: float) -> dict[str, Any]:
    per_class = {"rust": {"map50": map50, "map": map50 / 2}}
    return {
        "images": boxes / 2,
        "boxes": boxes,
        "minutes": boxes / 10,
        "map50": map50,
        "map": map50 / 2,
        "per_class": per_class,
    }


CURVE = [cycle(10, 0.2), cycle(20, 0.6), cycle(40, 0.8)]


def test_area_is_the_mean_over_the_effort() -> None:
    assert area(CURVE, "boxes", "map50", 10, 20) == pytest.approx(0.4)
    assert area(CURVE, "boxes", "map50", 10, 40) == pytest.approx((10 * 0.4 + 20 * 0.7) / 30)
    assert area(CURVE, "boxes", "map50", 20, 30) == pytest.approx(0.65)
    assert area(CURVE, "boxes", "map50", 40, 50) == pytest.approx(0.8)


def test_effort_to_a_target_is_linear_between_cycles() -> None:
    assert effort_to(CURVE, "boxes", "map50", 0.4) == pytest.approx(15)
    assert effort_to(CURVE, "minutes", "map50", 0.7) == pytest.approx(3)
    assert effort_to(CURVE, "boxes", "map50", 0.1) == 10
    assert effort_to(CURVE, "boxes", "map50", 0.9) is None


def results(gain: float) -> dict[str, list[dict[str, Any]]]:
    return {
        "initial": [cycle(10, 0.2)],
        "full": [cycle(100, 1.0)],
        "random": [cycle(20, 0.4), cycle(30, 0.6)],
        "entropy": [cycle(20, 0.4 + gain), cycle(32, 0.6 + gain)],
    }


def test_differences_are_paired_by_seed_over_the_common_effort() -> None:
    found = summarise({1: results(0.1), 2: results(0.2)}, ["random", "entropy"])
    (difference,) = found["differences"]
    assert (difference["strategy"], difference["against"]) == ("entropy", "random")
    assert difference["final_map50"]["delta"] == pytest.approx(0.15)
    low, high = difference["final_map50"]["ci95"]
    assert low < 0.15 < high
    areas = {row["strategy"]: row["map50_by_boxes"] for row in found["areas"]}
    assert areas["random"]["seeds"] == [pytest.approx(0.4)] * 2
    assert found["full"]["map50"] == {"mean": 1.0, "ci95": [1.0, 1.0], "seeds": [1.0, 1.0]}
    assert [row["cycle"] for row in found["curves"]] == [0, 1, 2] * 2
    assert found["curves"][1]["per_class"]["rust"]["map50"]["mean"] == pytest.approx(0.4)


def test_efforts_that_are_not_reached_are_unknown() -> None:
    found = summarise({1: results(0.3)}, ["random", "entropy"])
    efforts = {row["strategy"]: row for row in found["efforts"]}
    assert efforts["random"]["boxes_to_90_map50"] == {"mean": None, "ci95": None, "seeds": [None]}
    assert efforts["entropy"]["boxes_to_90_map50"]["mean"] == pytest.approx(32)
    assert found["differences"][0]["final_map50"] == {"delta": pytest.approx(0.3), "ci95": None, "p": None}


def test_the_plot_is_an_image(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    measured = summarise({1: results(0.1), 2: results(0.2)}, ["random", "entropy"])
    draw_curves({"data": "plates", **measured}, path)
    assert path.read_bytes()[:4] == b"\x89PNG"
