"""The benchmark of active experts."""

from __future__ import annotations

import itertools

from tiny import SMALL

from dsmoe_core.build import build_full_network
from pipelines.benchmarks.experts import activated_parameters, measure_experts

CONFIG = SMALL.model_copy(update={"experts": 8, "top_k": 2})


def test_more_active_experts_cost_more() -> None:
    measured = measure_experts(CONFIG, repeats=3, seed=1)
    assert [row["k"] for row in measured["rows"]] == [1, 2, 4, 5, 8]
    for name in ("gflops", "params_m"):
        values = [row[name] for row in measured["rows"]]
        assert all(a <= b for a, b in itertools.pairwise(values)), (name, values)
        assert values[0] < values[-1]
    for row in measured["rows"]:
        assert row["ms_quartiles"][0] <= row["ms"] <= row["ms_quartiles"][1]


def test_all_active_experts_use_every_weight() -> None:
    network = build_full_network(CONFIG)
    total = sum(p.numel() for p in network.parameters())
    assert activated_parameters(network, range(8)) == total
    one_cross_expert = 32 * 32 + 16 * 32 + 2 * 32  # W_v, W_t, and the layer norm's scale and shift
    assert activated_parameters(network, [0, 1, 2, 3, 4, 5, 6]) == total - one_cross_expert
