"""Combinations of a network and training settings that cannot be trained."""

from __future__ import annotations

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.errors import SettingsError


def incompatibility(model: ModelConfig, training: TrainingConfig) -> str | None:
    """Why a network cannot be trained with these settings; None if it can."""
    weight = training.losses.gradient_conflict
    if weight > 0 and model.head_input != "f_out":
        return (
            f"losses.gradient_conflict is {weight:g} and head_input is {model.head_input}; expected f_out, "
            "because the detections depend on the experts through it alone"
        )
    return None


def require_compatible(model: ModelConfig, training: TrainingConfig) -> None:
    """Refuse a network that cannot be trained with these settings.

    Raises:
        SettingsError: it cannot.
    """
    if problem := incompatibility(model, training):
        raise SettingsError(
            problem, "Set detector.training.losses.gradient_conflict to 0, or leave head_input."
        )
