"""Types that the stages pass to each other. A stage depends on these types, not on other stages."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class DistillationOutput(NamedTuple):
    """Output of stage 2: T^ and its auxiliary loss."""

    text: Float[Tensor, "q t"]
    value_overlap: Float[Tensor, ""]


class EncoderOutput(NamedTuple):
    """Output of stage 3: F_enc on the working grid, and the backbone's maps, finest first."""

    f_enc: Float[Tensor, "b d h w"]
    pyramid: list[Tensor]


class AlignmentOutput(NamedTuple):
    """Output of stage 5: vectors of every class in every image, in the Poincare ball."""

    fused: Float[Tensor, "b c n"]
    """G, tangent vectors at the origin."""
    anchors: Float[Tensor, "c n"]
    """t^, points of the ball."""
    points: Float[Tensor, "b c n"]
    """P(v), points of the ball."""
    distance: Float[Tensor, "b c"]
    """d_H(t^_i, P(v_i))."""
    log_affinity: Float[Tensor, "b h w c1"]
    """Log-probability of each class at every position; the last entry is background."""

    @property
    def affinity(self) -> Float[Tensor, "b h w c"]:
        """Probability of each class at every position; the rest, up to one, is background."""
        return self.log_affinity[..., :-1].exp()

    def spread(self, classes: Float[Tensor, "*_ c d"]) -> Float[Tensor, "b d h w"]:
        """Spread class vectors over space: every position gets their mean weighted by its affinities."""
        affinity = self.affinity
        batch, height, width, count = affinity.shape
        flat = affinity.reshape(batch, height * width, count).to(classes.dtype) @ classes
        return flat.transpose(1, 2).reshape(batch, -1, height, width)


class GatingOutput(NamedTuple):
    """Output of stage 7: the experts selected at every position, highest weight first.

    Where the router selects per image, h and w are 1. With ``tail_top_k`` there are k = a slots, and the
    unused slots of a position have weight 0.
    """

    experts: Int[Tensor, "b k h w"]
    weights: Float[Tensor, "b k h w"]
    probabilities: Float[Tensor, "b e h w"]
    """The router's whole distribution."""
    expert_text: Float[Tensor, "e t"]
    """T^_j, the text embedding of each expert."""
    logits: Float[Tensor, "b e h w"]
    """Their softmax is ``probabilities``."""


class AggregationOutput(NamedTuple):
    """Output of stage 10: F_out and its auxiliary loss."""

    f_out: Float[Tensor, "b d h w"]
    misalignment: Float[Tensor, ""]


class LevelOutput(NamedTuple):
    """Raw output of the head at one stride."""

    stride: int
    logits: Float[Tensor, "b c h w"]
    distances: Float[Tensor, "b 4 h w"]
    """Left, top, right, bottom from the cell's centre, in pixels, positive."""
