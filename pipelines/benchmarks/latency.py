"""What a picture costs on every runtime of this machine, and how the time divides at the encoder."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dsmoe_core.build import build
from dsmoe_core.config import ModelConfig
from dsmoe_core.network import Read
from dsmoe_core.runtimes.eager import EagerRuntime
from dsmoe_core.runtimes.graph import onnx_graph
from dsmoe_core.runtimes.int8 import quantised
from dsmoe_core.runtimes.onnx import OnnxRuntime, providers
from dsmoe_core.runtimes.openvino import OpenVinoRuntime, has_bf16
from dsmoe_core.runtimes.packages import need
from dsmoe_core.runtimes.protocol import Runtime

CLASSES, INNER = 6, 2
WARM_UP = 3
CALIBRATION = 8
PAUSE_S = 0.02
"""Between two runtimes: threads of the one before spin on for some milliseconds."""
Watch = Callable[[Sequence[Any]], Iterable[Any]]


class Contestant(NamedTuple):
    """One runtime on one device."""

    device: str
    runtime: Runtime

    @property
    def names(self) -> dict[str, str]:
        return {"device": self.device, "runtime": self.runtime.name, "dtype": self.runtime.precision}


def measure(
    config: ModelConfig,
    *,
    rounds: int,
    batches: Sequence[int],
    seed: int,
    compiled: bool = False,
    watch: Watch = iter,
) -> dict[str, Any]:
    """One network with fresh weights on all runtimes, each timed once a round, so that drift hits all alike.

    Random pictures and fresh weights do: time does not depend on them, but for which experts are chosen.

    Args:
        rounds: how often each is timed; the median counts.
        batches: pictures at once, beside one; several show where throughput is best.
        compiled: torch.compile too, also on the processor, where compiling takes minutes.
        watch: is handed the rounds and gives them back one by one, for a progress bar.

    Returns:
        The keys of latency.json.
    """
    torch.manual_seed(seed)
    network = build(config).eval()
    with torch.no_grad():
        read = network.read(torch.randn(CLASSES, config.text_width), torch.randn(INNER, config.text_width))
    with tempfile.TemporaryDirectory(prefix="dsmoe-") as folder:
        field = contestants(network, config, read, Path(folder), compiled=compiled)
        first: Any = field[0].runtime
        halves = Halves(first.network)
        rows: list[dict[str, Any]] = []
        for batch in sorted({1, *batches}):
            times = _time(field, halves, read, config.image_px, batch, rounds, seed, watch)
            rows += _rows(times, config.image_px, batch)
    with FlopCounterMode(display=False) as counter:
        network.cpu()(torch.rand(1, 3, config.image_px, config.image_px), read.steering, read.classes)
    gflops = counter.get_total_flops() / 1e9
    return {
        "size": config.size,
        "image_px": config.image_px,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "gflops": round(gflops, 2),
        "encoder_ms": round(statistics.median(halves.encoder_ms), 2),
        "after_encoder_ms": round(statistics.median(halves.after_encoder_ms), 2),
        **_share_of_peak(rows, gflops),
        "rows": rows,
    }


def contestants(
    network: nn.Module, config: ModelConfig, read: Read, folder: Path, *, compiled: bool
) -> list[Contestant]:
    """Everything on this machine that can run the network; eager fp32 first on every device."""
    field = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        own: Any = copy.deepcopy(network)
        field += [Contestant(device, EagerRuntime(own, p, device=device)) for p in ("fp32", "bf16")]
        if compiled or device == "cuda":
            own = copy.deepcopy(network)
            field.append(Contestant(device, EagerRuntime(own, "bf16", device=device, compiled=True)))
    path = folder / "model.onnx"
    graph: Any = onnx_graph(copy.deepcopy(network), config)  # type: ignore[arg-type]
    need("onnx").save(graph, path)
    for provider in providers():
        runtime = OnnxRuntime(path, provider, "bf16" if provider == "tensorrt" else "fp32")
        field.append(Contestant("cpu" if provider == "cpu" else "cuda", runtime))
    field.append(Contestant("cpu", OpenVinoRuntime(path)))
    if has_bf16():
        field.append(Contestant("cpu", OpenVinoRuntime(path, "bf16")))
    openvino, eight = need("openvino"), folder / "int8.xml"
    squares = _squares(CALIBRATION, config.image_px, seed=0).numpy()
    openvino.save_model(quantised(openvino.Core().read_model(path), list(squares), read), eight)
    return [*field, Contestant("cpu", OpenVinoRuntime(eight, "int8"))]


class Halves:
    """Times an encoder from within the passes over its network."""

    def __init__(self, network: Any) -> None:
        self.encoder_ms: list[float] = []
        self.after_encoder_ms: list[float] = []
        self._marks = [0.0, 0.0]
        encoder = network.image_encoder
        encoder.register_forward_pre_hook(lambda *_: self._mark(0))
        encoder.register_forward_hook(lambda *_: self._mark(1))

    def _mark(self, which: int) -> None:
        self._marks[which] = time.perf_counter()

    def note(self) -> None:
        """A pass has just ended, and it counts."""
        began, ended = self._marks
        self.encoder_ms.append((ended - began) * 1e3)
        self.after_encoder_ms.append((time.perf_counter() - ended) * 1e3)


def _time(
    field: Sequence[Contestant],
    halves: Halves,
    read: Read,
    side: int,
    batch: int,
    rounds: int,
    seed: int,
    watch: Watch,
) -> dict[Contestant, list[float]]:
    """Milliseconds of every contestant, round by round."""
    times: dict[Contestant, list[float]] = {one: [] for one in field}
    for number in watch(range(WARM_UP + rounds)):
        squares = _squares(batch, side, seed=seed + number)
        for one in list(times):
            took = _look(one, squares, read)
            if took is None:
                del times[one]
            elif number >= WARM_UP:
                times[one].append(took)
                if one is field[0] and batch == 1:
                    halves.note()
    return times


def _look(one: Contestant, squares: Tensor, read: Read) -> float | None:
    """Milliseconds of one pass; None where the batch does not fit."""
    time.sleep(PAUSE_S)
    began = time.perf_counter()
    try:
        one.runtime.look(squares, read.steering, read.classes)
        if one.device == "cuda":
            torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return None
    return (time.perf_counter() - began) * 1e3


def _squares(batch: int, side: int, *, seed: int) -> Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)


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
    """On a GPU: what a large bf16 product reaches, and what share of it the fastest row does."""
    if not torch.cuda.is_available():
        return {}
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
