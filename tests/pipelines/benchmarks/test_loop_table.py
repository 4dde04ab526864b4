"""Table of the benchmark of unattended rounds."""

from __future__ import annotations

from typing import Any

from pipelines.benchmarks.loop_table import loop_table

ROUND = {
    "images": 40,
    "boxes": 250,
    "champion_map50": None,
    "candidate_map50": 0.5,
    "reason": "promoted: first model",
    "training_seconds": 60,
    "round_seconds": 90,
}


def result(**more: Any) -> dict[str, Any]:
    plan = {"data": "boards", "px": 192, "images_seen": 500}
    part = {"pool": 1000, "test_images": 120, "rounds": [{**ROUND, "round": n} for n in range(3)]}
    return {"plan": plan, "unattended": part, **more}


def rows(table: str) -> list[str]:
    return [line for line in table.splitlines() if line.startswith("| ")][2:]


def test_one_row_for_each_round_and_none_for_parts_that_are_missing() -> None:
    table = loop_table(result())
    assert [row.split(" | ")[0] for row in rows(table)] == ["| 0", "| 1", "| 2"]
    assert table.splitlines()[-1] == rows(table)[-1]


def test_bad_round_has_its_share_of_wrong_boxes() -> None:
    bad = {**ROUND, "round": 3, "wrong_share": 0.3, "champion_map50": 0.6}
    last = rows(loop_table(result(bad_round=bad)))[-1]
    assert "30%" in last
    assert "0.600" in last


def test_counts_of_rollback_and_chance_are_shown() -> None:
    rollback = {"earlier": "r2+b", "after": {"newest": {"r2+b": 38, "none": 2}}, "blind": 2}
    chance = {"promoted": 1, "trials": 20, "candidate_higher": 9, "trainings": 5, "images": 30}
    *_, first, _, second = loop_table(result(rollback=rollback, chance=chance)).splitlines()
    assert {"38", "40", "2"} <= set(first.split())
    assert {"1", "20", "9", "5", "30"} <= set(second.replace(",", "").split())
