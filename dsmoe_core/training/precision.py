"""Chooses the floating-point precision of a training by the machine."""

from __future__ import annotations

from typing import Literal

import torch

from dsmoe_core.config import TrainingConfig

Precision = Literal["bf16-mixed", "32-true"]


def training_precision(training: TrainingConfig) -> Precision:
    """Return the precision of a training: that of the settings, or for ``auto`` the faster one.

    That is bf16 on a GPU that supports it and on a processor with AMX, which multiplies matrices of bf16.
    Other processors convert bf16 to fp32 and back, which takes longer than to compute in fp32.
    """
    if training.precision != "auto":
        return training.precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if torch.cpu._is_amx_tile_supported() else "32-true"
