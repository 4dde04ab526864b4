"""Combinations of a network and training settings that cannot be trained."""

from __future__ import annotations

from dsmoe_core.config import LossWeights, ModelConfig, TrainingConfig
from dsmoe_core.errors import SettingsError

ROW_F_ONLY = ("label_floor", "positive_beta", "box_weighting")
"""Settings of the losses that only QFL and CIoU have, row F of the ablation."""


def incompatibility(model: ModelConfig, training: TrainingConfig) -> str | None:
    """Why a network cannot be trained with these settings; None if it can."""
    weight = training.losses.gradient_conflict
    if weight > 0 and model.head_input != "f_out":
        return (
            f"losses.gradient_conflict is {weight:g} and head_input is {model.head_input}; expected f_out, "
            "because the detections depend on the experts through it alone"
        )
    changed = [name for name in ROW_F_ONLY if getattr(training.losses, name) != getattr(LossWeights(), name)]
    if changed and not model.paper_losses:
        values = ", ".join(f"losses.{name} {getattr(training.losses, name)}" for name in changed)
        return f"ablation is {model.ablation}; expected F with {values}, which only QFL and CIoU have"
    return None


def require_compatible(model: ModelConfig, training: TrainingConfig) -> None:
    """Refuse a network that cannot be trained with these settings.

    Raises:
        SettingsError: it cannot.
    """
    if problem := incompatibility(model, training):
        raise SettingsError(
            problem, "Change detector.model or detector.training.losses so that they fit each other."
        )
