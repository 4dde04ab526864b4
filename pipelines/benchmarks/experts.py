"""What an active expert costs: time, activated GFLOPs and parameters by k (the paper's Table 5)."""

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
WARM_UP = 2


def measure(
    config: ModelConfig,
    *,
    repeats: int,
    seed: int,
    watch: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> dict[str, Any]:
    """One network with fresh weights, timed at every k in turn, so that a slow moment hits all of them.

    Time depends on which experts are chosen, not on what their weights are; for random images a fresh
    router chooses several.

    Args:
        repeats: how often each k is timed; the median counts.
        watch: is handed the rounds and gives them back one by one, for a progress bar.

    Returns:
        The keys of experts.json; ``params_m`` counts the millions of weights that one image makes use of.
    """
    torch.manual_seed(seed)
    network = build_full_network(config).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(IMAGES, 3, config.image_px, config.image_px)
    active = [k for k in PAPER_K if k <= config.experts]
    times: dict[int, list[float]] = {k: [] for k in active}
    with torch.inference_mode():
        read = network.encode_classes(
            torch.randn(CLASSES, config.text_width), torch.randn(2, config.text_width)
        )
        for number in watch(range(WARM_UP + repeats)):
            image = images[number % IMAGES][None].contiguous(memory_format=torch.channels_last)
            for k in active:
                network.gating.top_k = k
                began = time.perf_counter()
                network(image, read.conditioning, read.classes)
                if number >= WARM_UP:
                    times[k].append((time.perf_counter() - began) * 1e3)
        rows = [_row(network, images[:1], read.conditioning, k, times[k]) for k in active]
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
        chosen = network(image, text, text).gated.experts[0].tolist()
    quartiles = statistics.quantiles(times, n=4)
    return {
        "k": k,
        "ms": round(statistics.median(times), 2),
        "ms_quartiles": [round(quartiles[0], 2), round(quartiles[2], 2)],
        "gflops": round(counter.get_total_flops() / 1e9, 3),
        "params_m": round(activated_parameters(network, chosen) / 1e6, 3),
    }


def activated_parameters(network: DSMoE, chosen: Sequence[int]) -> int:
    """Weights that an image makes use of whose router chose these experts."""
    experts = network.experts
    every = sum(p.numel() for p in network.parameters())
    of_experts = sum(p.numel() for p in experts.parameters())
    of_task = [sum(p.numel() for p in expert.parameters()) for expert in experts.task]
    of_one_cross = sum(p[0].numel() for p in experts.cross.parameters())
    used = sum(of_task[i] if i < len(of_task) else of_one_cross for i in chosen)
    return every - of_experts + used
