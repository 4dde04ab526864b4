"""Stage 6: space broadcasting, ``F_b = sum_s G_s(Gamma(G)) * D_s(Psi(F_cs, G))``, s in {0.5, 1, 2} (eq.
14-19).

- ``Gamma(G) = Conv1x1(Log_0(G))``. G is a sum of tangent vectors at the origin already, so we take it as it
  is; the letter is ``mapped``, which first pulls to the rim what lies outside the ball.
- ``Psi_s = Upsample_s(F_cs (+) Gamma(G))``, Gamma(G) spread over space by the class-position affinity.
- ``D_s = sum_k G^(k) (Delta p^(k) + p^(k))``: a modulated deformable convolution with 3 x 3 taps.
- offsets ``Delta p = Phi_s(AvgPool(G) (+) T^)`` and gates ``G^(k) = sigmoid(W_g^(k) [Gamma(G) . T^])``.
- dilation ``r_s = floor(1 + d_H / delta)``, delta learnable; offsets within 15 degrees of their tap's
  direction.

Paper: the scales are summed. We: each is evaluated at the positions of one common grid, a tap's step being
1/s cells, which is sampling on the resampled map without building it. floor() has no gradient and bilinear
sampling knows fractions: we use the interpolated dilation 1 + d_H / delta, at most 3; the letter is
``whole_dilation``, whose gradient is passed straight through floor(). An offset is drawn in
polar form, a length of zero to one cell and a turn of at most 15 degrees from the tap, so the constraint
holds by construction; the middle tap stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core import poincare
from dsmoe_core.convolution import AnisotropicDSConv
from dsmoe_core.outputs import AlignmentOutput

TAPS = 9
CONE = math.radians(15)
MAX_DILATION = 3.0


class SpaceBroadcasting(nn.Module):
    """Three scales of class-steered deformable sampling.

    Args:
        width: channels of F_cs and of F_b.
        text_width: d_t.
        ball_dim: n; Gamma(G) has n / 2 channels (d_e).
        scales: s.
        whole_dilation: round the dilation down to whole cells.
        mapped: take Log_0 of G.
    """

    def __init__(
        self,
        *,
        width: int,
        text_width: int,
        ball_dim: int,
        scales: Sequence[float] = (0.5, 1.0, 2.0),
        whole_dilation: bool = False,
        mapped: bool = False,
    ) -> None:
        super().__init__()
        self.mapped = mapped
        d_e = ball_dim // 2
        self.gamma = nn.Linear(ball_dim, d_e)
        self.text = nn.Linear(text_width, d_e)
        self.scales = nn.ModuleList(
            ScaleBranch(
                inputs=width + d_e,
                outputs=width,
                context=ball_dim + d_e,
                gate=d_e,
                scale=s,
                whole_dilation=whole_dilation,
            )
            for s in scales
        )
        self.norm = nn.BatchNorm2d(width)

    def forward(
        self, f_cs: Float[Tensor, "b d h w"], aligned: AlignmentOutput, text: Float[Tensor, "c t"]
    ) -> Float[Tensor, "b d h w"]:
        """F_b, same shape as F_cs."""
        height, width = f_cs.shape[-2:]
        fused = aligned.fused.to(f_cs.dtype)
        gamma, words = self.gamma(self._tangent(aligned.fused).to(f_cs.dtype)), self.text(text)
        gamma_map = aligned.spread(gamma)
        gate = aligned.spread(gamma * words)
        mean_fused = fused.mean(1)[..., None, None].expand(-1, -1, height, width)
        context = torch.cat([mean_fused, aligned.spread(words)], dim=1)
        reach = aligned.spread(aligned.distance[..., None])
        psi = torch.cat([f_cs, gamma_map.to(f_cs.dtype)], dim=1)
        first, *others = (branch(psi, context, gate, reach) for branch in self.scales)
        total: Tensor = sum(others, first)
        return F.silu(f_cs + self.norm(total.contiguous(memory_format=torch.channels_last)))

    def _tangent(self, fused: Float[Tensor, "b c n"]) -> Float[Tensor, "b c n"]:
        if not self.mapped:
            return fused
        with torch.autocast(fused.device.type, enabled=False):
            return poincare.log0(fused)


class ScaleBranch(nn.Module):
    """One scale s: G_s * D_s."""

    def __init__(
        self, *, inputs: int, outputs: int, context: int, gate: int, scale: float, whole_dilation: bool
    ) -> None:
        super().__init__()
        self.scale = scale
        self.whole_dilation = whole_dilation
        sampled = outputs // 4  # sampling is what this stage costs
        self.reduce = nn.Conv2d(inputs, sampled, 1)
        self.offsets = AnisotropicDSConv(context, 2 * TAPS)
        self.gate = nn.Conv2d(gate, TAPS, 1)
        self.mix = nn.Conv2d(sampled * TAPS, outputs, 1, bias=False)
        self.log_delta = nn.Parameter(torch.tensor(1.0))

    def forward(
        self,
        psi: Float[Tensor, "b i h w"],
        context: Float[Tensor, "b x h w"],
        gate: Float[Tensor, "b g h w"],
        reach: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, "b o h w"]:
        features = self.reduce(psi)
        if self.scale < 1:
            features = F.avg_pool2d(features, round(1 / self.scale), ceil_mode=True)
        length, turn = self.offsets(context).float().chunk(2, dim=1)
        dilation = (1 + reach / self.log_delta.exp()).clamp(max=MAX_DILATION)
        if self.whole_dilation:
            dilation = dilation + (dilation.floor() - dilation).detach()
        length, turn = length.sigmoid(), turn.tanh() * CONE  # away from the middle, never back to it
        samples = sample_taps(features.float(), length, turn, dilation, 1 / self.scale)
        # Everything stays as grid_sample has laid it out, here and in the gradients: copies cost more than
        # the arithmetic. So the 1 x 1 convolution is written as the product that it is.
        gates = torch.sigmoid(self.gate(gate.to(psi.dtype))).contiguous()
        modulated = rearrange(samples.to(psi.dtype) * gates[:, None], "b d k h w -> b (d k) (h w)")
        weights = rearrange(self.mix.weight, "o (k d) 1 1 -> o (d k)", k=TAPS)
        mixed = torch.bmm(weights.expand(psi.shape[0], -1, -1), modulated)
        return rearrange(mixed, "b o (h w) -> b o h w", h=psi.shape[-2])


def sample_taps(
    features: Float[Tensor, "b d fh fw"],
    length: Float[Tensor, "b k h w"],
    turn: Float[Tensor, "b k h w"],
    dilation: Float[Tensor, "b 1 h w"],
    step: float,
) -> Float[Tensor, "b d k h w"]:
    """Bilinear samples at ``step * (dilation * p + Delta p)`` around every grid position, zeros outside.

    ``length`` (cells) and ``turn`` (radians, from the tap's own direction) are the polar offset Delta p;
    ``step`` is the tap spacing in grid cells. The taps lie below each other in one tall grid: ``grid_sample``
    is faster on CPUs than torchvision's operator, and exports.
    """
    height, width = length.shape[-2:]
    taps = [(dy, dx, math.atan2(dy, dx), (dy, dx) != (0, 0)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    dy, dx, towards, moves = features.new_tensor(taps).T[..., None, None]
    angle, push = towards + turn, length * moves
    ys = torch.arange(height, device=features.device, dtype=features.dtype)[:, None]
    xs = torch.arange(width, device=features.device, dtype=features.dtype)
    y = ys + step * (dilation * dy + push * angle.sin())
    x = xs + step * (dilation * dx + push * angle.cos())
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1).flatten(1, 2)
    samples = F.grid_sample(features, grid, mode="bilinear", align_corners=False)
    return rearrange(samples, "b d (k h) w -> b d k h w", k=TAPS)
