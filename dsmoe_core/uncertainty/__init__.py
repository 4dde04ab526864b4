"""Uncertainty of detections and images.

``entropy.py`` has the plain measure. ``score_kinds.py`` lists the scores of a detection, who should act on
each, and which error it predicts; each score has a file. ``calibration.py`` turns raw scores into
probabilities of these errors. This module does not import torch.
"""

from dsmoe_core.uncertainty.entropy import MIN_SCORE, binary_entropy, filter_by_score, image_uncertainty

__all__ = ["MIN_SCORE", "binary_entropy", "filter_by_score", "image_uncertainty"]
