"""What an image costs on every runtime of this machine, and how the time divides at the encoder."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dsmoe_core.build import build
from dsmoe_core.config import ModelConfig
from dsmoe_core.network import ClassEncoding
from pipelines.benchmarks.runtimes import Contestant, Device, contestants, random_squares

CLASSES, INNER = 6, 2
WARM_UP = {"cpu": 3, "cuda": 20}
"""Passes of each that do not count; a GPU that was idle takes a while to come up to its clock."""
PAUSE_S = {"cpu": 0.02, "cuda": 0.0}
"""Between two runtimes: threads of the one before spin on for some milliseconds."""
Watch = Callable[[Sequence[Any]], Iterable[Any]]


def measure(
    config: ModelConfig,
    *,
    rounds: int,
    batches: Mapping[Device, Sequence[int]],
    seed: int,
    compiled: bool = False,
    watch: Watch = iter,
) -> dict[str, Any]:
    """One network with fresh weights on all runtimes, each timed once a round, so that drift hits all alike.

    Each device's runtimes are timed among themselves, so that a GPU does not wait for a processor and rest.

    Args:
        rounds: how often each is timed; the median counts.
        batches: the devices, and what each is shown at once, beside one image; several show where
            throughput is best.
        compiled: torch.compile too, also on the processor, where compiling takes minutes.
        watch: is handed the rounds and gives them back one by one, for a progress bar.

    Returns:
        The keys of latency.json.
    """
    torch.manual_seed(seed)
    network = build(config).eval()
    with torch.no_grad():
        read = network.encode_classes(
            torch.randn(CLASSES, config.text_width), torch.randn(INNER, config.text_width)
        )
    with tempfile.TemporaryDirectory(prefix="dsmoe-") as folder:
        field = contestants(network, config, read, Path(folder), devices=batches, compiled=compiled)
        first: Any = field.running[0]
        halves = Halves(first.runtime.network, first.device)
        rows: list[dict[str, Any]] = []
        for device, device_batches in batches.items():
            own = [one for one in field.running if one.device == device]
            for batch in sorted({1, *device_batches}):
                shown = _shown(device, batch, config.image_px, seed)
                times = _time(own, first, halves, read, shown, rounds, watch)
                rows += _rows(times, config.image_px, batch)
    with FlopCounterMode(display=False) as counter:
        network.cpu()(torch.rand(1, 3, config.image_px, config.image_px), read.conditioning, read.classes)
    gflops = counter.get_total_flops() / 1e9
    return {
        "size": config.size,
        "image_px": config.image_px,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "gflops": round(gflops, 2),
        "encoder_ms": round(statistics.median(halves.encoder_ms), 2),
        "after_encoder_ms": round(statistics.median(halves.after_encoder_ms), 2),
        **(_share_of_peak(rows, gflops) if "cuda" in batches else {}),
        "rows": rows,
        **({"left_out": field.left_out} if field.left_out else {}),
    }


class Halves:
    """Times an encoder from within the passes over its network."""

    def __init__(self, network: Any, device: str) -> None:
        self.encoder_ms: list[float] = []
        self.after_encoder_ms: list[float] = []
        self._marks = [0.0, 0.0]
        self._device = device
        encoder = network.image_encoder
        encoder.register_forward_pre_hook(lambda *_: self._mark(0))
        encoder.register_forward_hook(lambda *_: self._mark(1))

    def _mark(self, which: int) -> None:
        _wait_for(self._device)
        self._marks[which] = time.perf_counter()

    def note(self) -> None:
        """A pass has just ended, and it counts."""
        began, ended = self._marks
        self.encoder_ms.append((ended - began) * 1e3)
        self.after_encoder_ms.append((time.perf_counter() - ended) * 1e3)


def _shown(device: Device, batch: int, side: int, seed: int) -> Callable[[int], Tensor]:
    """The images of a round; for a GPU a few are made beforehand, in memory that it reads at full speed."""
    if device == "cpu":
        return lambda number: random_squares(batch, side, seed=seed + number)
    kept = [random_squares(batch, side, seed=seed + number).pin_memory() for number in range(2)]
    return lambda number: kept[number % len(kept)]


def _time(
    field: Sequence[Contestant],
    first: Contestant,
    halves: Halves,
    read: ClassEncoding,
    shown: Callable[[int], Tensor],
    rounds: int,
    watch: Watch,
) -> dict[Contestant, list[float]]:
    """Milliseconds of every contestant on one device, round by round; ``halves`` are of the first of all."""
    times: dict[Contestant, list[float]] = {one: [] for one in field}
    warm_up = max((WARM_UP[one.device] for one in field), default=0)
    for number in watch(range(warm_up + rounds)):
        squares = shown(number)
        for one in list(times):
            took = _look(one, squares, read)
            if took is None:
                del times[one]
                torch.cuda.empty_cache()  # what PyTorch holds back, no other runtime can have
            elif number >= warm_up:
                times[one].append(took)
                if one is first and len(squares) == 1:
                    halves.note()
    return times


def _look(one: Contestant, squares: Tensor, read: ClassEncoding) -> float | None:
    """Milliseconds of one pass; None where the batch does not fit."""
    time.sleep(PAUSE_S[one.device])
    began = time.perf_counter()
    try:
        one.runtime.run(squares, read.conditioning, read.classes)
        _wait_for(one.device)
    except torch.OutOfMemoryError:
        return None
    return (time.perf_counter() - began) * 1e3


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _rows(times: dict[Contestant, list[float]], side: int, batch: int) -> list[dict[str, Any]]:
    eager = {
        one.device: statistics.median(ms)
        for one, ms in reversed(times.items())
        if (one.runtime.name, one.runtime.precision) == ("eager", "fp32")
    }
    rows = []
    for one, ms in times.items():
        median, quartiles = statistics.median(ms), statistics.quantiles(ms, n=4)
        row = {
            **one.names,
            "image_px": side,
            "batch": batch,
            "ms": round(median, 2),
            "ms_quartiles": [round(quartiles[0], 2), round(quartiles[2], 2)],
            "pictures_per_s": round(batch / median * 1e3, 2),
        }
        if one.device in eager:
            row["ratio_to_eager"] = round(median / eager[one.device], 3)
        rows.append(row)
    return rows


def _share_of_peak(rows: Sequence[dict[str, Any]], gflops: float) -> dict[str, Any]:
    """What a large bf16 product reaches on the GPU, and what share of it the fastest row does."""
    n, repeats = 8192, 20
    a = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        a @ a
    torch.cuda.synchronize()
    peak = 2 * n**3 * repeats / (time.perf_counter() - began)
    best = max(row["pictures_per_s"] for row in rows if row["device"] == "cuda")
    return {"peak_tflops": round(peak / 1e12, 1), "share_of_peak": round(best * gflops * 1e9 / peak, 4)}
