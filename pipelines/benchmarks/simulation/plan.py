"""What a simulation runs: strategies, seeds, rounds, budgets, detector and training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dsmoe_core.config import Frozen, ModelConfig, TrainingConfig
from dsmoe_core.errors import SettingsError
from pipelines.benchmarks.comparison.variants import FIXED_SETTINGS
from pipelines.rounds.acquisition import acquisition_function
from pipelines.settings.changes import apply_changes
from pipelines.settings.detector import backbone_of_start
from pipelines.settings.rounds import RoundSettings
from pipelines.settings.validation import validate_settings

FIXED = (
    *FIXED_SETTINGS,
    "model.backbone",
    "training.encoder",
    "round.budget",
    "round.budget_boxes",
    "round.acquisition",
)
"""Settings that options of the command or the simulation itself determine."""


class _Settings(Frozen):
    """Settings that ``--set`` may name, as in dsmoe.yaml, where the first two are under ``detector``."""

    model: ModelConfig
    training: TrainingConfig
    round: RoundSettings


@dataclass(frozen=True, slots=True)
class Plan:
    """A simulation.

    Attributes:
        data: folder with images/, train.json and val.json.
        strategies: names of acquisition functions.
        rounds: selections after the initial set.
        budget: images that a round selects.
        budget_boxes: expected boxes that a round selects at most; None: no such budget.
        initial: images of the random initial set.
        model, training, round: settings; the length of the training is that of one cycle.
        weights: file with the initial weights of the image encoder.
        work: folder of the finished cycles.
    """

    data: Path
    strategies: tuple[str, ...]
    rounds: int
    budget: int
    budget_boxes: int | None
    initial: int
    model: ModelConfig
    training: TrainingConfig
    round: RoundSettings
    weights: Path
    work: Path

    @classmethod
    def of(
        cls,
        *,
        data: Path,
        strategies: Sequence[str],
        rounds: int,
        budget: int,
        budget_boxes: int | None,
        initial: int,
        images_seen: int,
        px: int,
        changes: str,
        start: str,
        weights: Path,
        work: Path,
    ) -> Self:
        """A plan with settings as in ``dsmoe benchmark lines --set``.

        Args:
            changes: ``SECTION.NAME=VALUE``, separated by spaces; sections: model, training, round.
            start: what the weights are, ``imagenet-lite`` or ``warm``; determines the backbone.

        Raises:
            SettingsError: a strategy or a setting is unknown, wrong or fixed.
            PrerequisiteError: the weights of the image encoder are missing.
        """
        for name in strategies:
            acquisition_function(name)
        if not strategies or len(set(strategies)) != len(strategies):
            raise SettingsError(
                f"the strategies are {', '.join(strategies) or 'missing'}; expected different names",
                "Give some such as random,entropy.",
            )
        if not weights.is_file():
            raise SettingsError(
                f"the weights of the image encoder are missing: {weights}", "Name a file with --file."
            )
        backbone = backbone_of_start(start)
        raw: dict[str, Any] = {
            "model": {**ModelConfig().model_dump(), "image_px": px, "backbone": backbone},
            "training": TrainingConfig(images_seen=images_seen, encoder="frozen").model_dump(),
            "round": RoundSettings(budget=budget, duplicate_similarity=None).model_dump(),
        }
        raw = apply_changes(raw, changes, example="training.learning_rate=0.001", fixed=FIXED)
        settings = validate_settings(_Settings, raw, f"--set {changes!r}")
        return cls(
            data,
            tuple(strategies),
            rounds,
            budget,
            budget_boxes,
            initial,
            settings.model,
            settings.training,
            settings.round,
            weights,
            work,
        )

    @property
    def training_identity(self) -> dict[str, Any]:
        """Values that determine the model of a set of labels, besides data, weights and code."""
        return {
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json", exclude={"seed"}),
        }

    @property
    def selection_identity(self) -> dict[str, Any]:
        """Values that determine the labels of each cycle."""
        return {
            "budget": self.budget,
            "budget_boxes": self.budget_boxes,
            "initial": self.initial,
            "round": self.round.model_dump(mode="json"),
        }
