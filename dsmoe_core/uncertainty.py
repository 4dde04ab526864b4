"""How unsure the detector is; higher = label sooner."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dsmoe_core.schema import Finding


def binary_entropy(probabilities: Float[np.ndarray, "*s c"]) -> Float[np.ndarray, "*s"]:
    """Mean binary entropy over the classes, in nats: 0 where all are sure, ln 2 where all are at one half."""
    p = np.clip(probabilities, 1e-7, 1 - 1e-7)
    entropy: Float[np.ndarray, "*s"] = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean(-1)
    return entropy


def picture_uncertainty(findings: Sequence[Finding]) -> float:
    """How useful a person's look at this picture would be: the summed entropy of its findings.

    The sum, not the mean, because a picture with many doubtful places teaches more than one with a single
    one (Brust et al., "Active learning for deep object detection", 2019: sum beats mean and maximum). Empty
    pictures come last, at zero. A place that is found as several classes counts once, as the likeliest.
    """
    return math.fsum(f.entropy for f in findings if f.likeliest)
