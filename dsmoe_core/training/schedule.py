"""Learning-rate schedules: factors on the maximum learning rate.

``cosine`` falls over the whole training, so its length in steps or minutes must be known before. ``wsd``
(warm-up, stable, decay) is constant until the training decides to end, and then falls over a short decay.
Hu et al., "MiniCPM" (2024) and Hägele et al., "Scaling laws and compute-optimal training beyond fixed
training durations" (NeurIPS 2024), from which the form of the decay is: 1 - sqrt.
"""

from __future__ import annotations

import math

from dsmoe_core.config import TrainingConfig

FLOOR = 0.01
"""Lowest factor, at the end of a training."""
MAX_WARMUP_STEPS = 50
"""Longest warm-up of ``wsd``, so that it does not depend on the length of a long training."""


def cosine_factor(done: float, warmup: float) -> float:
    """Linear warm-up, then a cosine down to ``FLOOR``.

    Args:
        done: fraction of the training that is done.
        warmup: fraction of the training with a rising rate.
    """
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def wsd_factor(step: int, warmup_steps: int, decay_from: int | None, end: int | None) -> float:
    """Linear warm-up, 1, then 1 - sqrt of the fraction of the decay, down to ``FLOOR``.

    Args:
        step: steps done.
        warmup_steps: steps with a rising rate.
        decay_from: steps done at the begin of the decay; None: it has not begun.
        end: steps done at the end of the decay.
    """
    factor = min(1.0, (step + 1) / (warmup_steps + 1))
    if decay_from is None or end is None or step < decay_from:
        return factor
    done = (step - decay_from) / max(1, end - decay_from)
    return factor * (FLOOR + (1 - FLOOR) * (1 - math.sqrt(min(1.0, done))))


def warmup_steps(training: TrainingConfig, steps: int | None) -> int:
    """Steps of the warm-up of ``wsd``.

    Args:
        steps: length of the training; None: unknown.
    """
    longest = MAX_WARMUP_STEPS if steps is None else round(training.warmup * steps)
    return min(MAX_WARMUP_STEPS, longest) if training.warmup else 0
