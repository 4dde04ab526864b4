"""Settings of a demo."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from dsmoe_core.config import Frozen, ModelConfig, SyntheticKind, TrainingConfig
from pipelines.settings.detector import DetectorSettings
from pipelines.settings.rounds import RoundSettings
from pipelines.settings.studio import StudioSettings
from pipelines.settings.workspace import WorkspaceSettings

SYNTHETIC_PX, SYNTHETIC_IMAGES_SEEN = 256, (400, 500, 700, 1400)
"""The demo on synthetic images: side of images and network input in pixels, training length of each round."""


class DemoPlan(Frozen):
    """Settings of a demo: rounds 0 to ``rounds`` with ``budget`` images each, sized for two CPU cores."""

    rounds: int = Field(3, ge=0, le=100)
    budget: int = Field(40, ge=1)
    seed: int = 42
    annotator: Literal["simulated", "human"] = "simulated"
    random_share: float = Field(0.1, ge=0, le=1)
    candidates: int | None = Field(400, ge=1)
    images_seen: tuple[int, ...] = (1500, 2000, 2500, 4000)
    minutes: float | None = Field(
        None, gt=0, description="time for the training of a round, as round.minutes; null: images_seen"
    )
    start: Literal["scratch", "warm", "imagenet-lite"] = Field(
        "scratch", description="initial weights of the image encoder, as detector.start"
    )
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    port: int = Field(8080, ge=1, le=65535)
    dry_run: bool = False
    synthetic: SyntheticKind = Field("pcb", description="kind of synthetic images, if no data is given")
    synthetic_train: int = Field(400, ge=1, description="synthetic images in the pool")
    synthetic_val: int = Field(100, ge=1, description="synthetic images in the test set")

    @model_validator(mode="after")
    def _candidates_cover_the_budget(self) -> Self:
        if self.candidates is not None and self.candidates < self.budget:
            raise ValueError(f"candidates is {self.candidates}; expected at least the budget, {self.budget}")
        return self

    def workspace_settings(self, title: str) -> WorkspaceSettings:
        """The settings of the demo's workspace."""
        kind: Literal["label-studio", "stub"] = "stub" if self.dry_run else "label-studio"
        return WorkspaceSettings(
            title=title,
            seed=self.seed,
            round=RoundSettings(
                budget=self.budget,
                random_share=self.random_share,
                candidates=self.candidates,
                minutes=self.minutes,
            ),
            studio=StudioSettings(kind=kind, port=self.port),
            detector=DetectorSettings(
                kind="stub" if self.dry_run else "ds-moe",
                model=self.model,
                training=self.training,
                images_seen=self.images_seen,
                start=self.start,
            ),
        )
