"""Settings of the detector, its text encoder and its training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from dsmoe_core.config import Frozen, ModelConfig, TrainingConfig
from dsmoe_core.training.compatibility import incompatibility


class PackagedText(Frozen):
    """The packaged MiniLM sentence encoder: works offline, 384 wide."""

    kind: Literal["minilm"] = "minilm"


class TransformersText(Frozen):
    """A language model that transformers loads, such as deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B."""

    kind: Literal["transformers"] = "transformers"
    model: str = Field(description="ORG/NAME on the Hugging Face hub, or the absolute path of a folder")
    revision: str | None = Field(
        None, description="branch, tag or commit on the hub; a cached commit needs no connection"
    )
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    device_map: str | None = Field(None, description="cuda:1, auto, ...; none: the GPU if there is one")

    @field_validator("model")
    @classmethod
    def _does_not_depend_on_the_working_directory(cls, model: str) -> str:
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*|[/~].*", model):
            raise ValueError("expected ORG/NAME or the absolute path of a folder")
        return model


class ServerText(Frozen):
    """A server with an OpenAI-compatible /embeddings; its key is DSMOE_EMBEDDINGS_API_KEY."""

    kind: Literal["server"] = "server"
    url: str = Field(pattern=r"^https?://", description="address, .../v1")
    model: str = Field(min_length=1, description="name of the model on the server")
    timeout_s: float = Field(60.0, gt=0)


TextSettings = Annotated[PackagedText | TransformersText | ServerText, Field(discriminator="kind")]


StartName = Literal["scratch", "mobile-sam", "imagenet-lite", "warm"]


def backbone_of_start(start: str) -> Literal["efficientnet-lite0", "tiny-vit"]:
    """The backbone of the image encoder that initial weights are for."""
    return "efficientnet-lite0" if start == "imagenet-lite" else "tiny-vit"


def needs_of_start(start: StartName, model: ModelConfig) -> dict[str, bool]:
    """What initial weights of the image encoder need of a network, and whether it has it."""
    backbone = backbone_of_start(start)
    needs = {f"backbone {backbone}": model.backbone == backbone}
    needs |= {} if start == "scratch" else {"an ablation row from C on": model.mobile_sam}
    needs |= {"size base": model.size == "base"} if start == "mobile-sam" else {}
    return needs


TINY_VIT_FIELDS = ("encoder_widths", "encoder_depths", "encoder_heads", "encoder_windows", "width")
"""Fields of ``ModelConfig`` that give the weights of stage 3 with TinyViT their shapes."""


def has_preset_encoder(model: ModelConfig) -> bool:
    """Whether the packaged warm start of a network's size has the shapes of its image encoder."""
    preset = ModelConfig.of_size(model.size)
    return all(getattr(model, name) == getattr(preset, name) for name in ("backbone", *TINY_VIT_FIELDS))


def default_encoder(start: str) -> Literal["frozen", "train"]:
    """Whether the image encoder is trained, by its initial weights; measured in docs/learning.md."""
    return "frozen" if start in ("imagenet-lite", "warm") else "train"


class DetectorSettings(Frozen):
    """The detector and its training."""

    kind: str = Field(
        "ds-moe",
        description="detector backend: a key of DETECTOR_BACKENDS, see pipelines/detectors/registry.py; stub "
        "recognises classes by colour, for dry runs",
    )
    model: ModelConfig = ModelConfig()
    text_encoder: TextSettings = Field(
        PackagedText(),
        description="embeds the class descriptions; a model works only with the one it was trained with",
    )
    start: StartName = Field(
        "scratch",
        description="initial weights of the image encoder: random, MobileSAM's (`dsmoe weights mobile-sam`), "
        "EfficientNet-Lite0's (`dsmoe weights imagenet-lite`), or pre-trained on synthetic images",
    )
    warm_start: str | None = Field(
        None,
        min_length=1,
        description="file made by `dsmoe pretrain`, absolute or relative to the workspace; none: the one "
        "that ships with dsmoe",
    )
    training: TrainingConfig = TrainingConfig()
    image_cache_gb: float = Field(
        8.0, ge=0, description="size of the cache of letterboxed images, in GB per image size; 0: no cache"
    )
    images_seen: tuple[int, ...] = Field(
        (4000,),
        min_length=1,
        description="training length of round 0, 1, ... in images; the last value holds for all later rounds",
    )
    second_selection: bool = Field(
        False,
        description="also run the next-best experts, for the uncertainty score `routing`; PyTorch only",
    )
    distill_champion: bool = Field(False, description="rounds: the champion is the candidate's teacher, too")

    @model_validator(mode="after")
    def _start_fits_the_encoder(self) -> Self:
        model, start = self.model, self.start
        needs = needs_of_start(start, model)
        if not all(needs.values()):
            raise ValueError(
                f"start is {start}, size {model.size}, backbone {model.backbone}, row {model.ablation}; "
                f"expected {', '.join(needs)}"
            )
        if self.warm_start is not None and self.start != "warm":
            raise ValueError(f"warm_start is given and start is {self.start}; expected warm")
        return self

    @model_validator(mode="after")
    def _network_fits_its_training(self) -> Self:
        if problem := incompatibility(self.model, self.training):
            raise ValueError(problem)
        return self

    def warm_start_file(self, workspace: Path) -> Path | None:
        """The file of ``warm_start``; None where it is not set.

        Args:
            workspace: folder that a relative path is relative to.
        """
        return None if self.warm_start is None else workspace / Path(self.warm_start).expanduser()

    def freezes_encoder(self, *, has_parent: bool) -> bool:
        """Whether a training freezes the image encoder: the settings say so, and it has trained weights.

        Args:
            has_parent: the training starts from a model.
        """
        return self.training.encoder == "frozen" and (has_parent or self.start != "scratch")

    def training_for_round(self, number: int, minutes: float | None = None) -> TrainingConfig:
        """The training settings of a round: its own length and its own seed.

        Args:
            minutes: time for the training; None: that of the training settings, if they have one.
        """
        images_seen = self.images_seen[min(number, len(self.images_seen) - 1)]
        return self.training.model_copy(
            update={
                "images_seen": images_seen,
                "minutes": minutes or self.training.minutes,
                "seed": self.training.seed + number,
            }
        )
