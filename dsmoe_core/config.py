"""Validated configuration of the detector and its training: immutable, unknown keys forbidden."""

from __future__ import annotations

from math import floor, log2
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

STRIDES = (4, 8, 16, 32)
"""Strides of the image encoder's four feature maps, in pixels."""
TINY_STRIDE = 4
AblationRow = Literal["A", "B", "C", "D", "E", "F"]
SyntheticKind = Literal["pcb", "aluminium", "glass"]
"""Kinds of images that ``data/synthetic`` generates."""


class Frozen(BaseModel):
    """Base of all configuration models: immutable, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PaperForms(Frozen):
    """Switches from our forms of the stages to the literal forms of the paper, where both can run.

    The docstring of each stage compares the two ("Paper: ... We: ..."); docs/decisions.md gives the reasons.
    """

    uncentred_text: bool = Field(
        False, description="stage 1: do not subtract the mean of the class embeddings"
    )
    class_position: bool = Field(False, description="stage 1: add a positional code of the class index")
    stride_pooling: bool = Field(
        False, description="stage 3: s_l is a stride, so detailed areas are averaged and flat ones max-pooled"
    )
    bare_attention: bool = Field(False, description="stage 4: output the attention without the factor F_enc")
    floor_dilation: bool = Field(
        False, description="stage 6: round the dilation down, with a straight-through gradient"
    )
    mapped_fusion: bool = Field(
        False, description="stage 6: apply Log_0 to G, which already is a sum of tangent vectors"
    )
    free_product: bool = Field(False, description="stage 7: inner product of vectors that are not normalised")
    class_experts: bool = Field(
        False, description="stage 7: expert i uses T^_i (i modulo C) instead of attention over all classes"
    )
    calibrated_tau: bool = Field(False, description="stage 7: initial temperature 0.07 instead of 0.25")
    free_choice: bool = Field(False, description="stage 7: select the top k without a load bias")
    raw_weights: bool = Field(False, description="stage 8: do not renormalise the selected softmax weights")
    summed_ensemble: bool = Field(
        False, description="stage 9: sum the two parts instead of concatenating them"
    )
    gate_only: bool = Field(False, description="stage 10: F_MoE only scales F_e and is not added to F_out")
    minimised_cosine: bool = Field(False, description="stage 10: L_align is the cosine instead of 1 - cosine")

    @classmethod
    def all_literal(cls) -> PaperForms:
        """Return the configuration with every literal form switched on."""
        return cls(**dict.fromkeys(cls.model_fields, True))


class Preprocessing(Frozen):
    """Image preprocessing; a model must be used with the preprocessing of its training."""

    gamma: float = Field(
        1.0,
        gt=0,
        le=10,
        description="exponent of the gamma correction of pixel values in [0, 1]; the paper uses 1.5",
    )
    resampling: Literal["area", "bilinear"] = Field(
        "area", description="interpolation when an image is scaled down; the paper uses bilinear"
    )


class Tiles(Frozen):
    """Overlapping tiles into which large images are cut for training and prediction."""

    px: int = Field(ge=64, description="side of a tile in image pixels; smaller images are not cut")
    overlap: float = Field(
        0.25, ge=0, lt=0.9, description="overlap of adjacent tiles, as a fraction of a tile's side"
    )
    visible: float = Field(
        0.5, gt=0, le=1, description="training: minimum visible fraction of a box for it to be used in a tile"
    )
    whole: bool = Field(True, description="also process the whole image, for defects larger than a tile")
    empty: float = Field(
        0.25, ge=0, le=1, description="training: fraction of the tiles without a box that is used"
    )


class ModelConfig(Frozen):
    """Architecture of the DS-MoE network. ``nano`` is for two CPU cores, ``base`` follows the paper."""

    size: Literal["nano", "base"] = "nano"
    image_px: int = Field(
        320, ge=64, multiple_of=32, description="side of the letter-boxed network input in pixels"
    )
    preprocessing: Preprocessing = Preprocessing()
    tiles: Tiles | None = Field(None, description="cut large images into tiles; null: do not cut")
    text_width: int = Field(
        384, ge=8, description="d_t, width of the text embeddings; a workspace takes it from its text encoder"
    )
    backbone: Literal["tiny-vit", "efficientnet-lite0"] = Field(
        "tiny-vit",
        description="stage 3: TinyViT, as in MobileSAM, or EfficientNet-Lite0 with ImageNet weights",
    )
    encoder_widths: tuple[int, int, int, int] = (32, 64, 96, 128)
    encoder_depths: tuple[int, int, int, int] = (1, 1, 2, 1)
    encoder_heads: tuple[int, int, int, int] = (1, 2, 3, 4)
    encoder_windows: tuple[int, int, int, int] = (5, 5, 10, 5)
    width: int = Field(64, ge=16, multiple_of=8, description="channels of the feature maps in stages 4 to 10")
    grid_stride: Literal[8, 16] = 8
    ball_dim: int = Field(32, ge=4, multiple_of=2, description="n, dimension of the Poincare ball")
    text_heads: int = Field(8, ge=1, description="attention heads of stage 2")
    experts: int = Field(8, ge=1, description="N_e, number of experts; more than task_experts has")
    task_experts: tuple[str, ...] = Field(
        ("local", "global"),
        description="names of the task experts (stages/experts.py); all others are cross-modal",
    )
    top_k: int = Field(3, ge=1, description="k, experts selected; the paper uses floor(log2 N_e)")
    tail_top_k: int | None = Field(
        None,
        ge=2,
        description="a, experts selected at positions in the tail (LTDR); null: top_k at all positions",
    )
    routing: Literal["position", "image"] = Field(
        "position", description="stage 7: select experts at every position, or per image as in the paper"
    )
    head_strides: tuple[int, ...] = Field((4, 8, 16), description="strides to detect at, finest first")
    head_width: int = Field(64, ge=16, multiple_of=8, description="channels in the head")
    head_input: Literal["f_enc", "f_cs", "f_b", "f_e", "f_out"] = Field(
        "f_out",
        description="rows E and F: the map that the head detects on, the output of stage 3, 4, 6, 9 or 10; "
        "another one than f_out shows what the stages after it bring",
    )
    head_shallow: bool = Field(True, description="the head at stride 4 also reads F_shallow, as in the paper")
    paper: PaperForms = PaperForms()
    ablation: AblationRow = Field("E", description="row of the paper's ablation; E and F have all ten stages")

    @property
    def uses_text(self) -> bool:
        """Whether the network reads class descriptions (rows B to F)."""
        return self.ablation >= "B"

    @property
    def mobile_sam(self) -> bool:
        """Whether the image encoder is MobileSAM's (rows C to F) instead of ResNet-50."""
        return self.ablation >= "C"

    @property
    def hyperbolic(self) -> bool:
        """Whether stages 5 and 6 are present (rows D to F)."""
        return self.ablation >= "D"

    @property
    def dynamic_experts(self) -> bool:
        """Whether stages 7 to 10 are present (rows E and F)."""
        return self.ablation >= "E"

    @property
    def paper_losses(self) -> bool:
        """Whether the losses are the paper's, QFL and CIoU (row F), instead of cross-entropy and IoU."""
        return self.ablation >= "F"

    def with_tiny_head(self, on: bool) -> ModelConfig:
        """Return a copy with or without the tiny-object head on the stride-4 map (Tables 6 and 7)."""
        strides = tuple(s for s in self.head_strides if s != TINY_STRIDE)
        return self.model_copy(update={"head_strides": (TINY_STRIDE, *strides) if on else strides})

    @model_validator(mode="after")
    def _check_combinations(self) -> ModelConfig:
        if self.experts <= len(self.task_experts):
            raise ValueError(
                f"experts is {self.experts}; expected more than the {len(self.task_experts)} task_experts"
            )
        if self.top_k > self.experts:
            raise ValueError(f"top_k is {self.top_k}; expected at most the number of experts, {self.experts}")
        if self.head_input != "f_out" and not self.dynamic_experts:
            raise ValueError(
                f"head_input is {self.head_input} and ablation is {self.ablation}; expected ablation E or F"
            )
        self._check_tail()
        if self.text_width % self.text_heads:
            raise ValueError(f"text_width {self.text_width} is not divisible by text_heads {self.text_heads}")
        if not self.head_strides or list(self.head_strides) != sorted(set(self.head_strides) & set(STRIDES)):
            raise ValueError(f"head_strides is {self.head_strides}; expected some of {STRIDES}, finest first")
        return self

    def _check_tail(self) -> None:
        if self.tail_top_k is None:
            return
        if not self.top_k < self.tail_top_k <= self.experts:
            raise ValueError(
                f"tail_top_k is {self.tail_top_k}; expected more than top_k, {self.top_k}, and at most the "
                f"number of experts, {self.experts}"
            )
        if self.routing != "position":
            raise ValueError(
                f"tail_top_k is {self.tail_top_k} and routing is {self.routing}; expected routing: position, "
                "because positions of an image are compared"
            )

    @classmethod
    def of_size(cls, size: Literal["nano", "base"]) -> ModelConfig:
        """Return the preset of this name; ``base`` has 640 px, 32 experts and k = floor(log2 32) = 5."""
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
    """Weights of the loss terms by their names in losses.py, and the form of QFL and its labels."""

    quality: float = Field(1.0, ge=0)
    balance_alpha: float | None = Field(None, description="alpha of alpha_t; null: no class balancing")
    label_floor: float = Field(
        0.5, ge=0, le=1, description="row F: soft label of a box's best cell at an IoU of 0; the paper uses 0"
    )
    positive_beta: float = Field(
        0.0,
        ge=0,
        description="row F: focusing exponent of QFL for cells with a label; the paper uses 2 for all cells",
    )
    box: float = Field(2.0, ge=0)
    box_weighting: Literal["equal", "alignment"] = Field(
        "equal",
        description="row F: weight of a cell in the box loss, 1 or its alignment relative to the best cell",
    )
    value_overlap: float = Field(0.01, ge=0)
    taxonomy: float = Field(0.05, ge=0)
    angle: float = Field(0.0, ge=0, description="stage 5: eq. 13 as a hinge; the paper's form")
    contrast: float = Field(
        0.1, ge=0, description="stage 5: the visual descriptor of a class is nearer to its own anchor"
    )
    affinity: float = Field(0.2, ge=0, description="stage 5: class-position affinity as in the true boxes")
    specialisation: float = Field(
        0.1, ge=0, description="stage 7: mutual information of expert and class in true boxes"
    )
    text_balance: float = Field(
        0.0,
        ge=0,
        description="stage 7: even use of the experts by the class texts (LTDR); the paper uses 0.01",
    )
    gradient_conflict: float = Field(
        0.0,
        ge=0,
        description="stage 7: route positions away from experts whose mean gradient they oppose (STGC)",
    )
    conflict_threshold: float = Field(
        0.0, ge=-1, lt=1, description="cosine of a position's gradient and the mean below which they conflict"
    )
    misalignment: float = Field(0.05, ge=0)
    teacher_class: float = Field(
        1.0, ge=0, description="distillation of the class probabilities; used in a training with a teacher"
    )
    teacher_box: float = Field(
        4.0, ge=0, description="distillation of the boxes; used in a training with a teacher"
    )

    @classmethod
    def paper(cls) -> LossWeights:
        """Return the paper's weights, for row F: ``2 alpha QFL + lambda CIoU``, alpha 0.45, lambda 0.05."""
        form = {"balance_alpha": 0.45, "label_floor": 0.0, "positive_beta": 2.0}
        ours = dict.fromkeys(("contrast", "affinity", "specialisation"), 0.0)
        # The paper gives no weight of eq. 13.
        return cls(quality=0.9, box=0.05, box_weighting="equal", angle=1.0, **form, **ours)


FINGERPRINT_EXCLUDED = {"micro_batch", "checkpoint_every_s"}
"""Training settings excluded from the run fingerprint: changing them does not start another run."""


class TrainingConfig(Frozen):
    """Training settings.

    By default the length is a number of images, so a run is the same on any machine. With ``minutes`` or
    ``patience`` it depends on the machine's speed or on the accuracy reached.
    """

    images_seen: int = Field(
        4000, ge=1, description="length of the training, in images processed; not used with minutes"
    )
    minutes: float | None = Field(
        None, gt=0, description="time for the training, decay included; null: images_seen"
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="early stopping: evaluations without improvement after which the decay begins; some "
        "images are held out for them (inner_split); null: no early stopping",
    )
    evaluate_every: int = Field(
        400, ge=1, description="early stopping: images processed between two evaluations"
    )
    inner_split: float = Field(
        0.15,
        gt=0,
        le=0.5,
        description="early stopping: fraction of the images that is held out of the training, at most 64",
    )
    schedule: Literal["auto", "cosine", "wsd"] = Field(
        "auto",
        description="learning rate: cosine, or wsd (warm-up, constant, short decay), which does not need to "
        "know the length; auto: wsd with patience, else cosine",
    )
    decay: float = Field(
        0.2, gt=0, lt=1, description="wsd: fraction of the training with a falling learning rate"
    )
    batch: int = Field(4, ge=1, description="images per step, over all processes")
    micro_batch: int | None = Field(
        None, ge=1, description="images per forward pass; null: the whole batch, or fewer if memory runs out"
    )
    encoder: Literal["train", "frozen"] = Field(
        "train",
        description="frozen: do not train the start model's image encoder, cache its features on disk, and "
        "augment with flips and turns only",
    )
    learning_rate: float = Field(2e-3, gt=0, description="maximum learning rate of AdamW")
    text_rate: float = Field(
        0.1,
        ge=0,
        description="learning rate of stages 1, 2 and the head's text projection, times learning_rate",
    )
    backbone_lr_factor: float = Field(
        1.0,
        ge=0,
        description="learning rate of the image encoder's backbone, times learning_rate",
    )
    matrix_rate: float = Field(
        5.0,
        ge=0,
        description="learning rate of matrices (Muon), times learning_rate; 0: AdamW for all weights",
    )
    weight_decay: float = Field(0.02, ge=0, description="weight decay of matrices and kernels")
    warmup: float = Field(0.1, ge=0, lt=1, description="fraction of the steps with a rising learning rate")
    precision: Literal["auto", "bf16-mixed", "32-true"] = Field(
        "auto",
        description="auto: bf16 on a GPU that has it; on a processor the faster one, measured once before a "
        "long training, else bf16 with AMX and fp32 without",
    )
    mixup: float = Field(
        0.0, ge=0, le=1, description="probability that an image is mixed with another; the paper uses 0.5"
    )
    zoom: float = Field(0.5, ge=0, le=1, description="probability that an image is scaled and shifted")
    flips: float = Field(
        1.0,
        ge=0,
        le=1,
        description="probability of a random flip: mirrored or not, each with probability 0.5",
    )
    turns: float = Field(
        1.0, ge=0, le=1, description="probability of a random rotation by 0, 90, 180 or 270 degrees"
    )
    brightness: float = Field(1.0, ge=0, le=1, description="probability of a random change of brightness")
    contrast: float = Field(0.0, ge=0, le=1, description="probability of a random change of contrast")
    noise: float = Field(0.0, ge=0, le=1, description="probability of added Gaussian noise")
    blur: float = Field(0.0, ge=0, le=1, description="probability of a slight blur")
    paste: float = Field(
        0.0, ge=0, le=1, description="probability that defects of another image are pasted on"
    )
    paste_rare: bool = Field(
        False, description="paste: take images with rare classes more often, by the inverse number of boxes"
    )
    class_subsets: float = Field(
        0.0, ge=0, le=1, description="fraction of the steps that train on a random subset of the classes"
    )
    set_sampling: Literal["proportional", "even"] = Field(
        "proportional",
        description="several training sets: each in proportion to its images, or all equally often",
    )
    paraphrases: float = Field(
        0.5, ge=0, le=1, description="fraction of a class's paraphrases used in a step, sampled for each step"
    )
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the moving average of the weights")
    losses: LossWeights = LossWeights()
    seed: int = 42
    checkpoint_every_s: float = Field(20.0, gt=0, description="seconds between resumable checkpoints")

    @property
    def kind_of_schedule(self) -> Literal["cosine", "wsd"]:
        """The schedule, chosen by the length if it is ``auto``."""
        if self.schedule != "auto":
            return self.schedule
        return "cosine" if self.patience is None else "wsd"
