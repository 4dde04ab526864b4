"""Stage 6: space broadcasting (eq. 14-19).

``F_b = sum_s G_s(Gamma(G)) * D_s(Psi(F_cs, G))`` with the scales s in {0.5, 1, 2}:

- ``Gamma(G) = Conv1x1(Log_0(G))`` (eq. 15). Paper: applies Log_0 to G. We: use G as it is, because it is
  already a sum of tangent vectors at the origin. The literal form is ``log_mapped``, which first pulls
  vectors outside the ball back to its boundary.
- ``Psi_s = Upsample_s(F_cs (+) Gamma(G))`` (eq. 16), with Gamma(G) spread over space by the class-position
  affinity.
- ``D_s = sum_k G^(k) (Delta p^(k) + p^(k))`` (eq. 17): a modulated deformable convolution with 3 x 3 taps.
- Offsets ``Delta p = Phi_s(AvgPool(G) (+) T^)`` (eq. 18).
- Gates ``G^(k) = sigmoid(W_g^(k) [Gamma(G) . T^])`` (eq. 19).
- Dilation ``r_s = floor(1 + d_H / delta)`` with a learnable delta. Offsets stay within 15 degrees of the
  direction of their tap.

Paper: resamples the three scales to one size and sums them. We: sample each scale at the positions of one
common grid with a tap step of 1/s cells, which equals sampling the resampled map without building it.

Paper: floor(), which has no gradient. We: use the fractional dilation 1 + d_H / delta, at most 3, since
bilinear sampling accepts fractions. The literal form is ``floor_dilation`` with a straight-through gradient.

The network predicts offsets in polar form: a length of 0 to 1 cell and a rotation of at most 15 degrees from
the direction of the tap. So the angle constraint holds by construction. The centre tap has no offset.

Paper: eq. 14 has no residual. We: add F_cs to the normalised sum, so that the stage starts near the identity
and the gradients of the later stages reach the encoder unchanged.
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
MAX_ROTATION = math.radians(15)
MAX_DILATION = 3.0


class SpaceBroadcasting(nn.Module):
    """Samples image features at several scales with offsets, gates and dilations that depend on the classes.

    Args:
        width: channels of F_cs and of F_b.
        text_width: d_t, width of the class embeddings.
        ball_dim: n, dimension of the Poincare ball; Gamma(G) has d_e = n / 2 channels.
        scales: values of s.
        floor_dilation: round the dilation down to an integer.
        log_mapped: apply Log_0 to G.
    """

    def __init__(
        self,
        *,
        width: int,
        text_width: int,
        ball_dim: int,
        scales: Sequence[float] = (0.5, 1.0, 2.0),
        floor_dilation: bool = False,
        log_mapped: bool = False,
    ) -> None:
        super().__init__()
        self.log_mapped = log_mapped
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
                floor_dilation=floor_dilation,
            )
            for s in scales
        )
        self.norm = nn.BatchNorm2d(width)

    def forward(
        self, f_cs: Float[Tensor, "b d h w"], aligned: AlignmentOutput, text: Float[Tensor, "c t"]
    ) -> Float[Tensor, "b d h w"]:
        """Compute F_b, of the same shape as F_cs."""
        height, width = f_cs.shape[-2:]
        fused = aligned.fused.to(f_cs.dtype)
        gamma, text_features = self.gamma(self._tangent(aligned.fused).to(f_cs.dtype)), self.text(text)
        of_class = gamma, gamma * text_features, text_features.expand_as(gamma), aligned.distance[..., None]
        maps = aligned.spread(torch.cat([v.to(gamma.dtype) for v in of_class], dim=-1))
        gamma_map, gate, text_map, distance = torch.split(maps, [v.shape[-1] for v in of_class], dim=1)
        mean_fused = fused.mean(1)[..., None, None].expand(-1, -1, height, width)
        context = torch.cat([mean_fused, text_map], dim=1)
        psi = torch.cat([f_cs, gamma_map.to(f_cs.dtype)], dim=1)
        first, *others = (branch(psi, context, gate, distance.float()) for branch in self.scales)
        total: Tensor = sum(others, first)
        out: Tensor = f_cs + self.norm(total.contiguous(memory_format=torch.channels_last))
        return out

    def _tangent(self, fused: Float[Tensor, "b c n"]) -> Float[Tensor, "b c n"]:
        if not self.log_mapped:
            return fused
        with torch.autocast(fused.device.type, enabled=False):
            return poincare.log0(fused)


class ScaleBranch(nn.Module):
    """Computes G_s * D_s of one scale s.

    Args:
        inputs: channels of Psi.
        outputs: channels of the result.
        context: channels of the input to the offset convolution Phi_s.
        gate: channels of Gamma(G) . T^, the input to the gates.
        scale: s.
        floor_dilation: round the dilation down to an integer.
    """

    def __init__(
        self, *, inputs: int, outputs: int, context: int, gate: int, scale: float, floor_dilation: bool
    ) -> None:
        super().__init__()
        self.scale = scale
        self.floor_dilation = floor_dilation
        sampled = outputs // 4  # fewer channels, because sampling dominates the cost of this stage
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
        distance: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, "b o h w"]:
        """Sample Psi around every position; ``distance`` is d_H spread over space."""
        features = self.reduce(psi)
        if self.scale < 1:
            features = F.avg_pool2d(features, round(1 / self.scale), ceil_mode=True)
        length, rotation = self.offsets(context).float().chunk(2, dim=1)
        dilation = (1 + distance / self.log_delta.exp()).clamp(max=MAX_DILATION)
        if self.floor_dilation:
            dilation = dilation + (dilation.floor() - dilation).detach()
        length, rotation = length.sigmoid(), rotation.tanh() * MAX_ROTATION  # lengths point outwards only
        samples = sample_taps(features.float(), length, rotation, dilation, 1 / self.scale)
        # The memory layout of grid_sample is kept, here and in the gradients: copies would cost more than the
        # arithmetic. So the 1 x 1 convolution is written as a matrix product.
        gates = torch.sigmoid(self.gate(gate.to(psi.dtype))).contiguous()
        modulated = rearrange(samples.to(psi.dtype) * gates[:, None], "b d k h w -> b (d k) (h w)")
        weights = rearrange(self.mix.weight, "o (k d) 1 1 -> o (d k)", k=TAPS)
        mixed = torch.bmm(weights.expand(psi.shape[0], -1, -1), modulated)
        return rearrange(mixed, "b o (h w) -> b o h w", h=psi.shape[-2])


def sample_taps(
    features: Float[Tensor, "b d fh fw"],
    length: Float[Tensor, "b k h w"],
    rotation: Float[Tensor, "b k h w"],
    dilation: Float[Tensor, "b 1 h w"],
    step: float,
) -> Float[Tensor, "b d k h w"]:
    """Sample bilinearly at ``step * (dilation * p + Delta p)`` around every grid position, zeros outside.

    The taps are stacked vertically in one tall grid: ``grid_sample`` is faster on CPUs than torchvision's
    deformable convolution, and it can be exported.

    Args:
        features: map to sample; it covers the same image area as the grid.
        length: length of the polar offset Delta p, in cells.
        rotation: angle of Delta p from the direction of its tap, in radians.
        dilation: spacing of the taps, in units of ``step``.
        step: length of one unit, in grid cells.
    """
    height, width = length.shape[-2:]
    taps = [(dy, dx, math.atan2(dy, dx), (dy, dx) != (0, 0)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    dy, dx, direction, has_offset = features.new_tensor(taps).T[..., None, None]
    angle, length = direction + rotation, length * has_offset
    ys = torch.arange(height, device=features.device, dtype=features.dtype)[:, None]
    xs = torch.arange(width, device=features.device, dtype=features.dtype)
    y = ys + step * (dilation * dy + length * angle.sin())
    x = xs + step * (dilation * dx + length * angle.cos())
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1).flatten(1, 2)
    samples = F.grid_sample(features, grid, mode="bilinear", align_corners=False)
    return rearrange(samples, "b d (k h) w -> b d k h w", k=TAPS)
