"""Extrapolated learning curve: a power law with a plateau, and the gain of more labels with an interval.

The quality of a model trained on n boxes is taken as (Hestness et al., "Deep Learning Scaling is Predictable,
Empirically", 2017)::

    f(n) = s + d * (1 - (n / n0) ** -b),    0 <= d,  s + d <= 1

with the smallest size n0, the quality s there, the plateau s + d and the exponent b. A few rounds do not
determine three parameters, so d and b have wide priors. Each bootstrap resample perturbs the values by the
noise and the centres of the priors by their width, and is fitted again ("randomise, then optimise", Bardsley
et al., 2014); without data the interval is that of the priors. A quality that rises faster with more boxes,
as at the very beginning, is not of this form; its gain is estimated too low.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

RISE, RISE_SD = 0.3, 0.3
"""Prior of d: the total gain beyond the smallest size."""
LOG_EXPONENT, LOG_EXPONENT_SD = float(np.log(0.5)), 0.6
"""Prior of log b; exponents of detectors are mostly between 0.2 and 1."""
NOISE = 0.02
"""Prior of the standard deviation of one value: seeds of a training differ by about this."""
_NOISE_WEIGHT = 3.0  # values that the prior of the noise counts for
_EXPONENTS = np.geomspace(0.1, 3.0, 40)
PERCENTILES = (2.5, 50.0, 97.5)


@dataclass(frozen=True, slots=True)
class Gain:
    """Expected gain of more labels, in the unit of the values.

    Attributes:
        more: additional boxes.
        value: median of the resamples.
        low, high: 95 % interval.
    """

    more: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """A fitted learning curve.

    Attributes:
        first, last: smallest and largest size of the data.
        start, rise, exponent: s, d and b of each of r resamples.
        noise: estimated standard deviation of one value.
    """

    first: float
    last: float
    start: Float[np.ndarray, " r"]
    rise: Float[np.ndarray, " r"]
    exponent: Float[np.ndarray, " r"]
    noise: float

    def values(self, size: float) -> Float[np.ndarray, " r"]:
        """f(size) of each resample, for a size from ``first`` on."""
        gained: Float[np.ndarray, " r"] = self.rise * (1 - (size / self.first) ** -self.exponent)
        return self.start + gained

    def gain(self, more: int) -> Gain:
        """The gain of this many more boxes than in the largest size of the data."""
        gains = self.values(self.last + more) - self.values(self.last)
        low, middle, high = (float(v) for v in np.percentile(gains, PERCENTILES))
        return Gain(more, middle, low, high)


def fit_learning_curve(
    sizes: Sequence[float], values: Sequence[float], *, resamples: int = 1000, seed: int = 0
) -> LearningCurve | None:
    """Fit the curve to at least two sizes.

    Args:
        sizes: numbers of boxes, above 0; the order does not matter.
        values: metric of the model of each size, 0 to 1.

    Returns:
        None with fewer than two different sizes.
    """
    if len(set(sizes)) < 2:
        return None
    n, y = np.array(sizes, dtype=np.float64), np.array(values, dtype=np.float64)
    shape = (n / n.min())[None, :] ** -_EXPONENTS[:, None]
    u = 1 - shape
    once = np.array([RISE]), np.array([LOG_EXPONENT])
    start, rise, index = _best(u, y[None, :], np.array([NOISE]), *once)
    squares = float(((y - start[0] - rise[0] * u[index[0]]) ** 2).sum())
    freedom = max(len(y) - 2, 0) + _NOISE_WEIGHT
    noise = float(np.sqrt((squares + _NOISE_WEIGHT * NOISE**2) / freedom))
    rng = np.random.default_rng(seed)
    deviation = noise * np.sqrt(freedom / rng.chisquare(freedom, resamples))
    start, rise, index = _best(
        u,
        np.clip(y + deviation[:, None] * rng.standard_normal((resamples, len(y))), 0.0, 1.0),
        deviation,
        rng.normal(RISE, RISE_SD, resamples),
        rng.normal(LOG_EXPONENT, LOG_EXPONENT_SD, resamples),
    )
    return LearningCurve(float(n.min()), float(n.max()), start, rise, _EXPONENTS[index], noise)


def _best(
    u: Float[np.ndarray, "g n"],
    y: Float[np.ndarray, "r n"],
    noise: Float[np.ndarray, " r"],
    rise_centre: Float[np.ndarray, " r"],
    log_exponent_centre: Float[np.ndarray, " r"],
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, " r"], np.ndarray]:
    """Start, rise and index of the exponent of the highest posterior; exact for each exponent of the grid."""
    mean_y, mean_u = y.mean(1)[:, None], u.mean(1)[None, :]
    precision, prior = (1 / noise**2)[:, None], 1 / RISE_SD**2
    across = (y - mean_y) @ (u - mean_u.T).T
    spread = ((u - mean_u.T) ** 2).sum(1)[None, :]
    rise = (precision * across + prior * rise_centre[:, None]) / (precision * spread + prior)
    rise = np.clip(rise, 0.0, np.maximum((1 - mean_y) / (1 - mean_u), 0.0))
    total = ((y - mean_y) ** 2).sum(1)[:, None]
    loss = precision * (total - 2 * rise * across + rise**2 * spread)
    loss = loss + prior * (rise - rise_centre[:, None]) ** 2
    logs = np.log(_EXPONENTS)[None, :]
    loss = loss + ((logs - log_exponent_centre[:, None]) / LOG_EXPONENT_SD) ** 2
    index = loss.argmin(1)
    rows = np.arange(len(y))
    best = rise[rows, index]
    return mean_y[:, 0] - best * mean_u[0, index], best, index
