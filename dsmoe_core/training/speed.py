"""Measures training and prediction on this machine: images per second of a network by precision and threads.

The step is that of a training, with all losses and the optimizer, on random pixels and boxes. A process that
runs next to it lowers the figures; the order of the alternatives is what they are for. So these are measured
in turn, and the best measurement of each counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from lightning.fabric import Fabric
from torch import Tensor

from dsmoe_core.build import build
from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.batches import Batch
from dsmoe_core.runtimes.eager import EagerRuntime
from dsmoe_core.schema import ClassText, Vocabulary
from dsmoe_core.text_embeddings import embed_vocabulary
from dsmoe_core.training.distributed import ProcessGroup
from dsmoe_core.training.objective import Objective
from dsmoe_core.training.optimizer import build_optimizer, set_learning_rate
from dsmoe_core.training.precision import Precision
from dsmoe_core.training.step_sampler import TrainingStep

VOCABULARY = Vocabulary(tuple(ClassText(f"class {i}", f"class {i}") for i in range(6)))
BOXES = 4
"""Boxes in each image."""
MEASUREMENTS = 2
"""Of each alternative."""
MIN_GAIN = 1.1
"""Another precision or number of threads is used if it is this many times as fast as the first one."""


class SpeedOption(NamedTuple):
    """What a measurement runs with."""

    precision: Precision
    threads: int


def training_speed(
    model: ModelConfig, option: SpeedOption, *, batch: int = 4, steps: int = 3, max_seconds: float = 4.0
) -> float:
    """Images per second of training steps, after a first one that is not counted.

    Args:
        steps: most steps to measure; fewer once ``max_seconds`` have passed.
    """
    with _threads(option.threads):
        fabric = Fabric(accelerator="auto", devices=1, precision=option.precision)
        network = fabric.to_device(build(model)).to(memory_format=torch.channels_last).train()
        training = TrainingConfig(batch=batch, precision=option.precision)
        wrapped, optimizer = fabric.setup(network, build_optimizer(network, training))
        wrapped.mark_forward_method("encode_classes")
        set_learning_rate(optimizer, 1e-6)
        objective = Objective(
            fabric, wrapped, training.losses, not model.paper_losses, ProcessGroup(), encoder=None
        )
        step = _random_step(model, batch)

        def work() -> None:
            objective.accumulate_gradients(step, batch)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return batch * _per_second(work, steps, max_seconds)


def prediction_speed(
    model: ModelConfig, option: SpeedOption, *, batch: int = 4, steps: int = 3, max_seconds: float = 4.0
) -> float:
    """Images per second of the network's predictions, without reading the images; see ``training_speed``."""
    with _threads(option.threads):
        network = build(model).eval()
        runtime = EagerRuntime(network, "bf16" if option.precision == "bf16-mixed" else "fp32")
        step = _random_step(model, batch)
        with torch.no_grad():
            device = runtime.device
            encoding = network.encode_classes(step.classes.to(device), step.inner.to(device))
        pixels = torch.from_numpy(step.batch.pixels)
        return batch * _per_second(
            lambda: runtime.run(pixels, encoding.conditioning, encoding.classes), steps, max_seconds
        )


def fastest(
    options: Sequence[SpeedOption], measure: Callable[[SpeedOption], float]
) -> tuple[SpeedOption, dict[SpeedOption, float]]:
    """The fastest option, and the speed of each; the first option unless another is clearly faster.

    The options are measured in turn, ``MEASUREMENTS`` times, and the highest speed of each counts.

    Args:
        measure: returns the images per second with an option.
    """
    speeds = dict.fromkeys(options, 0.0)
    for _ in range(MEASUREMENTS):
        speeds = {option: max(before, measure(option)) for option, before in speeds.items()}
    best = max(options, key=lambda option: speeds[option])
    return (best if speeds[best] >= MIN_GAIN * speeds[options[0]] else options[0]), speeds


def _per_second(work: Callable[[], object], steps: int, max_seconds: float) -> float:
    work()
    _synchronise()
    started, done = time.perf_counter(), 0
    while done < steps and (done == 0 or time.perf_counter() - started < max_seconds):
        work()
        _synchronise()
        done += 1
    return done / (time.perf_counter() - started)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with this many threads, and keep torch's random numbers as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(before)


class _RandomTexts:
    """Text encoder that returns random vectors."""

    name = "random"

    def __init__(self, width: int) -> None:
        self.width = width

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        return torch.randn(len(texts), self.width)


def _random_step(model: ModelConfig, batch: int) -> TrainingStep:
    rng, side = np.random.default_rng(0), model.image_px
    pixels = rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    corners = rng.uniform(0, side * 0.8, (batch, BOXES, 2))
    boxes = [np.concatenate([c, c + side * 0.1], axis=1).astype(np.float32) for c in corners]
    labels = [rng.integers(0, len(VOCABULARY.classes), BOXES) for _ in range(batch)]
    texts = embed_vocabulary(VOCABULARY, _RandomTexts(model.text_width))
    active = torch.arange(len(VOCABULARY.classes))
    return TrainingStep.with_classes(active, Batch(pixels, boxes, labels), texts.classes, texts)
