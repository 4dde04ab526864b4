"""Images per second of training and of prediction on this processor, by encoder and precision."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import torch

from dsmoe_core.config import ModelConfig
from dsmoe_core.errors import SettingsError
from dsmoe_core.training.precision import Precision
from dsmoe_core.training.speed import SpeedOption, prediction_speed, training_speed
from pipelines.progress import ProgressReporter

ENCODERS = ("nano", "base", "efficientnet-lite0")
PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed")


def encoder_model(name: str, px: int | None) -> ModelConfig:
    """The network of a preset, or ``nano`` with the backbone EfficientNet-Lite0.

    Args:
        px: side of the input; None: the preset's.

    Raises:
        SettingsError: the name is unknown.
    """
    if name not in ENCODERS:
        raise SettingsError(f"unknown encoder {name!r}; expected one of {', '.join(ENCODERS)}", "Correct it.")
    model = ModelConfig.of_size("base" if name == "base" else "nano")
    changes: dict[str, Any] = {} if px is None else {"image_px": px}
    if name == "efficientnet-lite0":
        changes["backbone"] = name
    return model.model_copy(update=changes)


def measure_training_speed(
    encoders: Sequence[str], px: int | None, batch: int, steps: int, progress: ProgressReporter
) -> dict[str, Any]:
    """One row for each encoder and precision.

    Args:
        px: side of the input; None: each preset's.
        batch: images per step.
        steps: most steps of each measurement.

    Returns:
        The rows, and the ``load`` of the machine afterwards: processes that compete for its cores, the
        averages over 1, 5 and 15 minutes.
    """
    for logger in ("lightning.fabric", "lightning.pytorch"):  # they log every precision
        logging.getLogger(logger).setLevel(logging.WARNING)
    models = {name: encoder_model(name, px) for name in encoders}
    threads, rows = torch.get_num_threads(), []
    for name, model in models.items():
        for precision in PRECISIONS:
            progress.status(f"{name}, {model.image_px} px, {precision}")
            option = SpeedOption(precision, threads)
            speeds = {
                "training_images_per_s": training_speed(model, option, batch=batch, steps=steps),
                "prediction_images_per_s": prediction_speed(model, option, batch=batch, steps=steps),
            }
            rounded = {key: round(value, 2) for key, value in speeds.items()}
            row = {"encoder": name, "image_px": model.image_px, "precision": precision}
            rows.append({**row, "threads": threads, **rounded})
    return {
        "batch": batch,
        "steps": steps,
        "load": [round(load, 1) for load in os.getloadavg()],
        "rows": rows,
    }
