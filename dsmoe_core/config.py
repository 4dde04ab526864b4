"""Checked configuration of the detector and its training: frozen, extras forbidden, all errors at once."""

from __future__ import annotations

from math import floor, log2
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

STRIDES = (4, 8, 16, 32)
"""Of the encoder's four maps."""
TINY_STRIDE = 4
AblationRow = Literal["A", "B", "C", "D", "E", "F"]
SyntheticKind = Literal["pcb", "aluminium", "glass"]
"""What ``data/synthetic`` can draw."""


class Frozen(BaseModel):
    """What every configuration of ours is."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PaperForms(Frozen):
    """Where the letter of the paper can run but we read it otherwise: true takes the letter.

    Each stage's docstring says "Paper: ... We: ...", docs/decisions.md says why.
    """

    uncentred_text: bool = Field(False, description="stage 1: T with what all descriptions have in common")
    class_position: bool = Field(False, description="stage 1: add the positional code over the class index")
    stride_pooling: bool = Field(
        False, description="stage 3: s_l is a stride, so that detail is averaged and flat ground kept"
    )
    bare_attention: bool = Field(False, description="stage 4: attention without the leading F_enc")
    floor_dilation: bool = Field(
        False, description="stage 6: floor() of the dilation, its gradient passed straight through"
    )
    mapped_fusion: bool = Field(False, description="stage 6: Log_0 of G, which is a sum of tangent vectors")
    free_product: bool = Field(False, description="stage 7: inner product of vectors of any length")
    class_experts: bool = Field(
        False, description="stage 7: expert i reads T^_i (modulo C) instead of asking all classes"
    )
    calibrated_tau: bool = Field(False, description="stage 7: tau from 0.07, as the text has it elsewhere")
    free_choice: bool = Field(False, description="stage 7: the k best as they are, nobody is handicapped")
    raw_weights: bool = Field(False, description="stage 8: chosen weights as the softmax gives them")
    summed_ensemble: bool = Field(False, description="stage 9: the two parts are summed, not concatenated")
    minimised_cosine: bool = Field(False, description="stage 10: L_align is the cosine, not 1 - cos")

    @classmethod
    def all_literal(cls) -> PaperForms:
        """All of them."""
        return cls(**dict.fromkeys(cls.model_fields, True))


class Preprocessing(Frozen):
    """What is done to an image before the network sees it; a model is only right with its own."""

    gamma: float = Field(
        1.0,
        gt=0,
        le=10,
        description="exponent of s = r^gamma for pixels r of 0 to 1; the paper has 1.5",
    )
    resampling: Literal["area", "bilinear"] = Field(
        "area", description="how an image is made smaller; the paper has bilinear"
    )


class Tiles(Frozen):
    """Large images are trained on and looked at in overlapping tiles."""

    px: int = Field(ge=64, description="side of a tile, in image pixels; smaller images are left whole")
    overlap: float = Field(0.25, ge=0, lt=0.9, description="share of a tile's side that the next one has too")
    visible: float = Field(
        0.5, gt=0, le=1, description="training: a box belongs to tiles that show so much of it"
    )
    whole: bool = Field(True, description="look at the whole image too, for defects larger than a tile")
    empty: float = Field(0.25, ge=0, le=1, description="training: share of tiles without a box that is kept")


class ModelConfig(Frozen):
    """Shape of the DS-MoE network. ``nano`` is made for two cores, ``base`` follows the paper."""

    size: Literal["nano", "base"] = "nano"
    image_px: int = Field(320, ge=64, multiple_of=32, description="side of the letter-boxed square")
    preprocessing: Preprocessing = Preprocessing()
    tiles: Tiles | None = Field(None, description="cut large images into tiles; none: look at them whole")
    text_width: int = Field(384, ge=8, description="d_t; a workspace takes it from its text encoder")
    encoder_widths: tuple[int, int, int, int] = (32, 64, 96, 128)
    encoder_depths: tuple[int, int, int, int] = (1, 1, 2, 1)
    encoder_heads: tuple[int, int, int, int] = (1, 2, 3, 4)
    encoder_windows: tuple[int, int, int, int] = (5, 5, 10, 5)
    width: int = Field(64, ge=16, multiple_of=8, description="channels of stages 4 to 10")
    grid_stride: Literal[8, 16] = 8
    ball_dim: int = Field(32, ge=4, multiple_of=2, description="n, dimension of the Poincare ball")
    text_heads: int = Field(8, ge=1)
    experts: int = Field(8, ge=3, description="N_e")
    top_k: int = Field(3, ge=1, description="k; the paper takes floor(log2 N_e)")
    head_strides: tuple[int, ...] = (4, 8, 16)
    head_width: int = Field(64, ge=16, multiple_of=8)
    paper: PaperForms = PaperForms()
    ablation: AblationRow = Field("F", description="row of the paper's ablation; F is the whole method")

    @property
    def uses_text(self) -> bool:
        """From row B on."""
        return self.ablation >= "B"

    @property
    def mobile_sam(self) -> bool:
        """From row C on; ResNet-50 before."""
        return self.ablation >= "C"

    @property
    def hyperbolic(self) -> bool:
        """From row D on."""
        return self.ablation >= "D"

    @property
    def dynamic_experts(self) -> bool:
        """From row E on."""
        return self.ablation >= "E"

    @property
    def paper_losses(self) -> bool:
        """QFL and CIoU, in row F; cross-entropy and IoU before."""
        return self.ablation >= "F"

    def with_tiny_head(self, on: bool) -> ModelConfig:
        """The same with or without the tiny-object head on the stride-4 features (Tables 6 and 7)."""
        strides = tuple(s for s in self.head_strides if s != TINY_STRIDE)
        return self.model_copy(update={"head_strides": (TINY_STRIDE, *strides) if on else strides})

    @model_validator(mode="after")
    def _top_k_fits(self) -> ModelConfig:
        if self.top_k > self.experts:
            raise ValueError(f"top_k is {self.top_k}; expected at most the number of experts, {self.experts}")
        if self.text_width % self.text_heads:
            raise ValueError(f"text_width {self.text_width} is not divisible by text_heads {self.text_heads}")
        if not self.head_strides or list(self.head_strides) != sorted(set(self.head_strides) & set(STRIDES)):
            raise ValueError(f"head_strides is {self.head_strides}; expected some of {STRIDES}, finest first")
        return self

    @classmethod
    def of_size(cls, size: Literal["nano", "base"]) -> ModelConfig:
        """The preset of that name; for ``base``: 640 px, 32 experts, top floor(log2 32) = 5."""
        if size == "nano":
            return cls()
        return cls(
            size="base",
            image_px=640,
            encoder_widths=(64, 128, 160, 320),
            encoder_depths=(2, 2, 6, 2),
            encoder_heads=(2, 4, 5, 10),
            encoder_windows=(7, 7, 14, 7),
            width=128,
            grid_stride=16,
            ball_dim=64,
            experts=32,
            top_k=floor(log2(32)),
            head_strides=(4, 8, 16, 32),
            head_width=96,
        )


class LossWeights(Frozen):
    """Weight of every loss term, by its name in ``losses.py``, and the form of QFL and its labels."""

    quality: float = Field(1.0, ge=0)
    balance_alpha: float | None = Field(None, description="alpha of alpha_t in QFL; none: no such weighing")
    label_floor: float = Field(
        0.5,
        ge=0,
        le=1,
        description="soft label of a box's best cell before anything lies right; the paper has 0",
    )
    positive_beta: float = Field(
        0.0, ge=0, description="focus of QFL on cells that have a label; the paper has 2, as for the others"
    )
    box: float = Field(2.0, ge=0)
    value_overlap: float = Field(0.01, ge=0)
    taxonomy: float = Field(0.05, ge=0)
    angle: float = Field(0.05, ge=0)
    misalignment: float = Field(0.05, ge=0)

    @classmethod
    def paper(cls) -> LossWeights:
        """``2 alpha QFL + lambda CIoU`` to the letter: alpha = 0.45, lambda = 0.05 (eq. 31)."""
        return cls(quality=0.9, balance_alpha=0.45, box=0.05, label_floor=0.0, positive_beta=2.0)


FINGERPRINT_EXCLUDED = {"micro_batch", "checkpoint_every_s"}
"""Settings of a training that do not make it another one."""


class TrainingConfig(Frozen):
    """How to train. Budgets count images seen, so that a run repeats on any machine."""

    images_seen: int = Field(4000, ge=1, description="training length, in images shown to the network")
    batch: int = Field(4, ge=1, description="images a step, over all processes")
    micro_batch: int | None = Field(
        None, ge=1, description="images in memory at once; none: all of the batch, fewer if they do not fit"
    )
    encoder: Literal["train", "frozen"] = Field(
        "train",
        description="frozen: keep the image encoder of the model to start from, and its features on disk",
    )
    learning_rate: float = Field(2e-3, gt=0)
    text_rate: float = Field(
        0.1, ge=0, description="learning rate of stages 1 and 2 and the head's words, in learning_rate"
    )
    matrix_rate: float = Field(
        5.0, ge=0, description="learning rate of Muon's matrices, in learning_rate; 0: AdamW moves them"
    )
    weight_decay: float = Field(0.02, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps with a rising learning rate")
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed"
    mixup: float = Field(0.0, ge=0, le=1, description="share of images mixed with another; the paper has 0.5")
    zoom: float = Field(0.5, ge=0, le=1, description="share of images zoomed and shifted")
    flips: float = Field(1.0, ge=0, le=1, description="share for which a coin decides whether it is mirrored")
    turns: float = Field(1.0, ge=0, le=1, description="share turned by 0 to 3 quarters, each as likely")
    brightness: float = Field(1.0, ge=0, le=1, description="share made brighter or darker")
    contrast: float = Field(0.0, ge=0, le=1, description="share with more or less contrast")
    noise: float = Field(0.0, ge=0, le=1, description="share with Gaussian noise")
    blur: float = Field(0.0, ge=0, le=1, description="share blurred a little")
    paste: float = Field(0.0, ge=0, le=1, description="share with defects of another image pasted on")
    class_subsets: float = Field(
        0.0, ge=0, le=1, description="share of steps that ask about a random part of the classes alone"
    )
    paraphrases: float = Field(
        0.5, ge=0, le=1, description="share of a class's paraphrases that a step reads, drawn anew each time"
    )
    ema: float = Field(0.998, ge=0, lt=1)
    losses: LossWeights = LossWeights()
    seed: int = 42
    checkpoint_every_s: float = Field(20.0, gt=0, description="seconds between resumable checkpoints")
