"""Latency and throughput of a network on every runtime of this machine, and the time of its encoder."""

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
from pipelines.benchmarks.runtimes import Device, DeviceRuntime, available_runtimes, random_images

CLASSES, INNER_CLASSES = 6, 2
WARM_UP_ROUNDS = {"cpu": 3, "cuda": 20}
"""Rounds that are not counted; an idle GPU takes some passes to reach its clock rate."""
PAUSE_S = {"cpu": 0.02, "cuda": 0.0}
"""Pause before each pass: the threads of the previous runtime keep spinning for some milliseconds."""
Tracker = Callable[[Sequence[Any]], Iterable[Any]]


def measure_latency(
    config: ModelConfig,
    *,
    rounds: int,
    batches: Mapping[Device, Sequence[int]],
    seed: int,
    compiled: bool = False,
    track: Tracker = iter,
) -> dict[str, Any]:
    """Time a network with random weights on all runtimes.

    Each round times every runtime of a device once, so that drift affects all. Devices take turns.

    Args:
        rounds: timed rounds; the median counts.
        batches: batch sizes of each device, in addition to 1; several show where the throughput peaks.
        compiled: torch.compile on the CPU too, where compiling takes minutes.
        track: yields the given rounds one by one, for a progress bar.

    Returns:
        The keys of latency.json.
    """
    torch.manual_seed(seed)
    network = build(config).eval()
    with torch.no_grad():
        encoding = network.encode_classes(
            torch.randn(CLASSES, config.text_width), torch.randn(INNER_CLASSES, config.text_width)
        )
    with tempfile.TemporaryDirectory(prefix="dsmoe-") as folder:
        runtimes = available_runtimes(
            network, config, encoding, Path(folder), devices=batches, compiled=compiled
        )
        reference: Any = runtimes.available[0]
        encoder_timer = EncoderTimer(reference.runtime.network, reference.device)
        rows: list[dict[str, Any]] = []
        for device, device_batches in batches.items():
            on_device = [one for one in runtimes.available if one.device == device]
            for batch in sorted({1, *device_batches}):
                images_of = _input_images(device, batch, config.image_px, seed)
                times = time_runtimes(
                    on_device, encoding, images_of, rounds, {reference: encoder_timer}, track
                )
                rows += latency_rows(times, config.image_px, batch)
    with FlopCounterMode(display=False) as counter:
        network.cpu()(
            torch.rand(1, 3, config.image_px, config.image_px), encoding.conditioning, encoding.classes
        )
    gflops = counter.get_total_flops() / 1e9
    return {
        "size": config.size,
        "image_px": config.image_px,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "gflops": round(gflops, 2),
        "encoder_ms": round(statistics.median(encoder_timer.encoder_ms), 2),
        "after_encoder_ms": round(statistics.median(encoder_timer.after_encoder_ms), 2),
        **(_share_of_peak(rows, gflops) if "cuda" in batches else {}),
        "rows": rows,
        **({"left_out": runtimes.left_out} if runtimes.left_out else {}),
    }


class EncoderTimer:
    """Times the image encoder within the passes of a network, by hooks."""

    def __init__(self, network: Any, device: str) -> None:
        self.encoder_ms: list[float] = []
        self.after_encoder_ms: list[float] = []
        self._start = self._end = 0.0
        self._device = device
        network.image_encoder.register_forward_pre_hook(self._record_start)
        network.image_encoder.register_forward_hook(self._record_end)

    def _record_start(self, *_: Any) -> None:
        _synchronize(self._device)
        self._start = time.perf_counter()

    def _record_end(self, *_: Any) -> None:
        _synchronize(self._device)
        self._end = time.perf_counter()

    def add_pass(self) -> None:
        """Add the times of the pass that has just ended."""
        self.encoder_ms.append((self._end - self._start) * 1e3)
        self.after_encoder_ms.append((time.perf_counter() - self._end) * 1e3)


def _input_images(device: Device, batch: int, side: int, seed: int) -> Callable[[int], Tensor]:
    """A function that returns the images of a round; for a GPU two batches in pinned memory alternate."""
    if device == "cpu":
        return lambda number: random_images(batch, side, seed=seed + number)
    pinned = [random_images(batch, side, seed=seed + number).pin_memory() for number in range(2)]
    return lambda number: pinned[number % len(pinned)]


def time_runtimes(
    runtimes: Sequence[DeviceRuntime],
    encoding: ClassEncoding,
    images_of: Callable[[int], Tensor],
    rounds: int,
    encoder_timers: Mapping[DeviceRuntime, EncoderTimer],
    track: Tracker,
) -> dict[DeviceRuntime, list[float]]:
    """Milliseconds of every runtime of one device in each round; runtimes without memory for it are dropped.

    Args:
        images_of: returns the images of a round, uint8 (batch, side, side, 3).
        encoder_timers: record the passes of their runtime over single images.
    """
    times: dict[DeviceRuntime, list[float]] = {runtime: [] for runtime in runtimes}
    warm_up = max((WARM_UP_ROUNDS[runtime.device] for runtime in runtimes), default=0)
    for number in track(range(warm_up + rounds)):
        images = images_of(number)
        for runtime in list(times):
            elapsed_ms = _time_pass(runtime, images, encoding)
            if elapsed_ms is None:
                del times[runtime]
                torch.cuda.empty_cache()  # memory that PyTorch caches is not available to other runtimes
            elif number >= warm_up:
                times[runtime].append(elapsed_ms)
                if runtime in encoder_timers and len(images) == 1:
                    encoder_timers[runtime].add_pass()
    return times


def _time_pass(timed: DeviceRuntime, images: Tensor, encoding: ClassEncoding) -> float | None:
    """Milliseconds of one pass; None if the batch does not fit into memory."""
    time.sleep(PAUSE_S[timed.device])
    started = time.perf_counter()
    try:
        timed.runtime.run(images, encoding.conditioning, encoding.classes)
        _synchronize(timed.device)
    except torch.OutOfMemoryError:
        return None
    return (time.perf_counter() - started) * 1e3


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def latency_rows(times: Mapping[DeviceRuntime, list[float]], side: int, batch: int) -> list[dict[str, Any]]:
    """Result rows: median and quartiles, and the ratio to eager fp32 on the same device."""
    eager_ms = {
        timed.device: statistics.median(ms)
        for timed, ms in times.items()
        if (timed.runtime.name, timed.runtime.precision) == ("eager", "fp32")
    }
    rows = []
    for timed, ms in times.items():
        median, quartiles = statistics.median(ms), statistics.quantiles(ms, n=4)
        row = {
            **timed.names,
            "image_px": side,
            "batch": batch,
            "ms": round(median, 2),
            "ms_quartiles": [round(quartiles[0], 2), round(quartiles[2], 2)],
            "pictures_per_s": round(batch / median * 1e3, 2),
        }
        if timed.device in eager_ms:
            row["ratio_to_eager"] = round(median / eager_ms[timed.device], 3)
        rows.append(row)
    return rows


def _share_of_peak(rows: Sequence[dict[str, Any]], gflops: float) -> dict[str, Any]:
    """Peak TFLOP/s of a large bf16 product on the GPU, and the share of it that the fastest row reaches."""
    n, repeats = 8192, 20
    a = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        a @ a
    torch.cuda.synchronize()
    peak = 2 * n**3 * repeats / (time.perf_counter() - started)
    best = max(row["pictures_per_s"] for row in rows if row["device"] == "cuda")
    return {"peak_tflops": round(peak / 1e12, 1), "share_of_peak": round(best * gflops * 1e9 / peak, 4)}
