"""What the stages hand to each other. Stages know these, never each other."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class DistillationOutput(NamedTuple):
    """Stage 2: T^ and its auxiliary loss."""

    text: Float[Tensor, "q t"]
    value_overlap: Float[Tensor, ""]


class EncoderOutput(NamedTuple):
    """Stage 3: F_enc on the working grid, and the pyramid it was made from, finest first."""

    f_enc: Float[Tensor, "b d h w"]
    pyramid: list[Tensor]


class AlignmentOutput(NamedTuple):
    """Stage 5: what the Poincare ball says of every class in every image."""

    fused: Float[Tensor, "b c n"]
    """G, tangent vectors at the origin."""
    anchors: Float[Tensor, "c n"]
    """t^, points of the ball."""
    points: Float[Tensor, "b c n"]
    """P(v), points of the ball."""
    distance: Float[Tensor, "b c"]
    """d_H(t^_i, P(v_i))."""
    affinity: Float[Tensor, "b h w c"]
    """Share of every position that belongs to each class; the rest, up to one, belongs to none."""

    def spread(self, classes: Float[Tensor, "*_ c d"]) -> Float[Tensor, "b d h w"]:
        """Class vectors over space: every position gets the mean of the classes it looks like."""
        batch, height, width, count = self.affinity.shape
        flat = self.affinity.reshape(batch, height * width, count).to(classes.dtype) @ classes
        return flat.transpose(1, 2).reshape(batch, -1, height, width)


class GatingOutput(NamedTuple):
    """Stage 7: the router's choice for every image, best expert first."""

    experts: Int[Tensor, "b k"]
    weights: Float[Tensor, "b k"]
    probabilities: Float[Tensor, "b e"]
    expert_text: Float[Tensor, "e t"]
    """T^_j: what each expert reads in the class book."""


class AggregationOutput(NamedTuple):
    """Stage 10: F_out and its auxiliary loss."""

    f_out: Float[Tensor, "b d h w"]
    misalignment: Float[Tensor, ""]


class LevelOutput(NamedTuple):
    """The head's raw answer at one stride."""

    stride: int
    logits: Float[Tensor, "b c h w"]
    distances: Float[Tensor, "b 4 h w"]
    """Left, top, right, bottom from the cell's centre, in pixels, positive."""
