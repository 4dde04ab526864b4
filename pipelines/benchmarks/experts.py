"""Cost of active experts: time, activated GFLOPs and parameters by k (Table 5 of the paper)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dsmoe_core.build import build_full_network
from dsmoe_core.config import ModelConfig
from dsmoe_core.network import DSMoE

PAPER_K = (1, 2, 4, 5, 8, 16, 32)
CLASSES = 6
IMAGES = 8
WARM_UP_ROUNDS = 2


def measure_experts(
    config: ModelConfig,
    *,
    repeats: int,
    seed: int,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> dict[str, Any]:
    """Time a network with random weights at every k.

    Every k is timed once in each round, so that a slow phase of the machine affects all of them. The time
    depends on which experts the router selects, not on their weights; for random images an untrained router
    selects several.

    Args:
        repeats: timed rounds; the median counts.
        track: yields the given rounds one by one, for a progress bar.

    Returns:
        The keys of experts.json. ``params_m`` is the number of weights, in millions, that one position uses.
    """
    torch.manual_seed(seed)
    network = build_full_network(config).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(IMAGES, 3, config.image_px, config.image_px)
    values_of_k = [k for k in PAPER_K if k <= config.experts]
    times: dict[int, list[float]] = {k: [] for k in values_of_k}
    with torch.inference_mode():
        encoding = network.encode_classes(
            torch.randn(CLASSES, config.text_width), torch.randn(2, config.text_width)
        )
        for number in track(range(WARM_UP_ROUNDS + repeats)):
            image = images[number % IMAGES][None].contiguous(memory_format=torch.channels_last)
            for k in values_of_k:
                network.gating.top_k = k
                started = time.perf_counter()
                network(image, encoding.conditioning, encoding.classes)
                if number >= WARM_UP_ROUNDS:
                    times[k].append((time.perf_counter() - started) * 1e3)
        rows = [_row(network, images[:1], encoding.conditioning, k, times[k]) for k in values_of_k]
    return {
        "size": config.size,
        "image_px": config.image_px,
        "batch": 1,
        "experts": config.experts,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "rows": rows,
    }


def _row(network: DSMoE, image: Tensor, text: Tensor, k: int, times: Sequence[float]) -> dict[str, Any]:
    network.gating.top_k = k
    with FlopCounterMode(display=False) as counter:
        selected = network(image, text, text).gated.experts[0, :, 0, 0].tolist()
    quartiles = statistics.quantiles(times, n=4)
    return {
        "k": k,
        "ms": round(statistics.median(times), 2),
        "ms_quartiles": [round(quartiles[0], 2), round(quartiles[2], 2)],
        "gflops": round(counter.get_total_flops() / 1e9, 3),
        "params_m": round(activated_parameters(network, selected) / 1e6, 3),
    }


def activated_parameters(network: DSMoE, selected: Sequence[int]) -> int:
    """Number of weights that a position uses whose router selected these experts."""
    experts = network.experts
    total = sum(p.numel() for p in network.parameters())
    all_experts = sum(p.numel() for p in experts.parameters())
    task_experts = [sum(p.numel() for p in expert.parameters()) for expert in experts.task]
    one_cross_expert = sum(p[0].numel() for p in experts.cross.parameters())
    used = sum(task_experts[i] if i < len(task_experts) else one_cross_expert for i in selected)
    return total - all_experts + used
