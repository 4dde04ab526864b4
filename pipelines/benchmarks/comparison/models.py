"""Builds the models of a comparison from the presets."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.errors import SettingsError
from dsmoe_core.progress import StatusCallback
from dsmoe_core.schema import Vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder
from pipelines.benchmarks.comparison.dsmoe_model import DsmoeModel
from pipelines.benchmarks.comparison.protocol import BenchmarkModel
from pipelines.benchmarks.comparison.yolo.yolo_model import YoloModel
from pipelines.settings.changes import apply_changes
from pipelines.settings.detector import (
    StartName,
    backbone_of_start,
    default_encoder,
    has_preset_encoder,
    needs_of_start,
)
from pipelines.settings.validation import validate_settings

Size = Literal["nano", "base"]
DSMOE_SIZES: tuple[Size, ...] = ("nano", "base")


class ModelBuilder:
    """Builds DS-MoE and YOLO models that all have the same input size.

    Args:
        px: side of the network's input in pixels.
        yolo_python: returns the interpreter of the YOLO environment, and builds the environment if needed.
        training: base settings of DS-MoE trainings.

    Attributes:
        start: initial weights of the image encoder; the presets have its backbone.
    """

    def __init__(
        self,
        px: int,
        text_encoder: TextEncoder,
        yolo_python: Callable[[StatusCallback], Path],
        *,
        training: TrainingConfig | None = None,
    ) -> None:
        self.px = px
        self.training = training or TrainingConfig()
        self.start: StartName = "scratch"
        self._encoder_from: Path | None = None
        self._text_encoder = text_encoder
        self._yolo_python = yolo_python

    def with_training(self, changes: str) -> ModelBuilder:
        """The same builder with other base settings of the trainings.

        Args:
            changes: NAME=VALUE, or several separated by spaces.

        Raises:
            SettingsError: a change is malformed or wrong.
        """
        raw = apply_changes(self.training.model_dump(), changes, example="learning_rate=0.001")
        training = validate_settings(TrainingConfig, raw, "--set")
        changed = copy.copy(self)
        changed.training = training
        return changed

    def with_start(self, start: StartName, weights: Path | None) -> ModelBuilder:
        """The same builder with initial weights of the image encoder, frozen where `dsmoe init` does so.

        Args:
            start: what the weights are: ``scratch``, ``warm`` or ``imagenet-lite``.
            weights: their file, which comes with an installed package; None: random weights.
        """
        changed = copy.copy(self)
        changed.training = self.training.model_copy(update={"encoder": default_encoder(start)})
        changed.start, changed._encoder_from = start, weights
        return changed

    def require_start(self, config: ModelConfig, what: str) -> None:
        """Refuse a network that the initial weights are not for; so nothing is trained before.

        Args:
            what: what asks for the network, for the message.

        Raises:
            SettingsError: they are for another one.
        """
        if self._encoder_from is None:
            return
        needs = needs_of_start(self.start, config)
        if self.start == "warm":
            needs["the image encoder of its size"] = has_preset_encoder(config)
        if missing := [need for need, met in needs.items() if not met]:
            raise SettingsError(
                f"{what} has backbone {config.backbone} and ablation row {config.ablation}; the start "
                f"{self.start} needs {', '.join(missing)}",
                f"Leave out {what}, or give --start scratch.",
            )

    def preset(self, size: Size) -> ModelConfig:
        """The configuration of a preset at this input size.

        Raises:
            SettingsError: the network does not support the input size.
        """
        chosen = {"image_px": self.px, "backbone": backbone_of_start(self.start)}
        raw = {**ModelConfig.of_size(size).model_dump(), **chosen}
        return validate_settings(ModelConfig, raw, "the command line")

    def dsmoe(
        self,
        name: str,
        config: ModelConfig,
        *,
        training: TrainingConfig | None = None,
        vocabulary: Vocabulary | None = None,
        encoder_from: Path | None = None,
        start_from: Path | None = None,
        teacher: Path | None = None,
    ) -> DsmoeModel:
        """DS-MoE with any configuration; see :class:`DsmoeModel`."""
        return DsmoeModel(
            name,
            config,
            self._text_encoder,
            training=training or self.training,
            vocabulary=vocabulary,
            encoder_from=encoder_from or self._encoder_from,
            start_from=start_from,
            teacher=teacher,
        )

    def dsmoe_preset(
        self,
        size: Size,
        *,
        vocabulary: Vocabulary | None = None,
        encoder_from: Path | None = None,
        class_subsets: float = 0.0,
    ) -> DsmoeModel:
        """DS-MoE of a preset size.

        Args:
            class_subsets: see ``TrainingConfig``.

        Raises:
            SettingsError: the network does not support the input size.
        """
        training = self.training.model_copy(update={"class_subsets": class_subsets})
        return self.dsmoe(
            size, self.preset(size), training=training, vocabulary=vocabulary, encoder_from=encoder_from
        )

    def yolo(self, size: str, rate: float = 1.0) -> BenchmarkModel:
        """YOLOv8 of a size of ``YOLO_SIZES``, with the batch of DS-MoE; see :class:`YoloModel`."""
        return YoloModel(size, self.px, self._yolo_python, batch=self.training.batch, rate=rate)
