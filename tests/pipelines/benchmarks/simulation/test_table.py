"""The table of a simulation."""

from __future__ import annotations

from typing import Any

from pipelines.benchmarks.simulation.table import simulation_table


def result(**areas: list[float]) -> dict[str, Any]:
    effort = {"mean": None, "seeds": [None] * len(areas["random"])}
    return {
        "data": "boards",
        "full": {"map50": {"mean": 0.5}},
        "curves": [{"strategy": name, "map50": {"seeds": seeds}} for name, seeds in areas.items()],
        "areas": [
            {"strategy": name, "map50_by_boxes": {"mean": sum(seeds) / len(seeds), "seeds": seeds}}
            for name, seeds in areas.items()
        ],
        "efforts": [
            {"strategy": name, "boxes_to_95_map50": effort, "minutes_to_95_map50": effort} for name in areas
        ],
        "differences": [],
        "stopping": [
            {"boxes_saved": [None], "map_lost": [None], "covered": 1, "forecasts": 2} for _ in areas
        ],
    }


def pairs(table: str) -> str:
    (sentence,) = [part for part in table.split("\n\n") if part.startswith("Of all")]
    return sentence


def test_pairs_whose_interval_is_clear_of_zero_are_named() -> None:
    table = simulation_table(result(random=[0.1, 0.2, 0.3], better=[0.2, 0.3, 0.41], noisy=[0.1, 0.4, 0.2]))
    assert pairs(table).startswith("Of all 3 pairs")
    assert "better above random (+0.103 [" in pairs(table)
    assert pairs(table).count(" above ") == 1


def test_equal_strategies_have_no_pair_and_one_seed_no_sentence() -> None:
    assert pairs(simulation_table(result(random=[0.1, 0.3], other=[0.3, 0.1]))).endswith(": none.")
    assert "Of all" not in simulation_table(result(random=[0.1], other=[0.3]))
