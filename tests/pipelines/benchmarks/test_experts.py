"""The benchmark of active experts counts what an image makes use of."""

from __future__ import annotations

import itertools

from tiny import SMALL

from dsmoe_core.build import build_full_network
from pipelines.benchmarks.experts import activated_parameters, measure

CONFIG = SMALL.model_copy(update={"experts": 8, "top_k": 2})


def test_more_active_experts_cost_more_and_are_timed_in_turn() -> None:
    measured = measure(CONFIG, repeats=3, seed=1)
    assert [row["k"] for row in measured["rows"]] == [1, 2, 4, 5, 8]
    for name in ("gflops", "params_m"):
        figures = [row[name] for row in measured["rows"]]
        assert all(a <= b for a, b in itertools.pairwise(figures)), (name, figures)
        assert figures[0] < figures[-1]
    for row in measured["rows"]:
        assert row["ms_quartiles"][0] <= row["ms"] <= row["ms_quartiles"][1]


def test_with_all_experts_active_every_weight_is_in_use() -> None:
    network = build_full_network(CONFIG)
    every = sum(p.numel() for p in network.parameters())
    assert activated_parameters(network, range(8)) == every
    one_cross = 32 * 32 + 16 * 32 + 2 * 32  # W_v, W_t, and the layer norm's scale and shift
    assert activated_parameters(network, [0, 1, 2, 3, 4, 5, 6]) == every - one_cross
