"""Chooses augmentations: those that a frozen image encoder allows, and those that the labels suggest.

Labels suggest copy-paste for rare classes, and no rotation if a class is a direction.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.batches import AUGMENTATIONS
from dsmoe_core.schema import LabelledImage, Vocabulary

CACHEABLE = ("flips", "turns")
"""Augmentations that give at most eight variants of an image, so its features can be cached."""
RARE = 0.25
"""A class is rare if it has fewer boxes than this share of the mean over the classes."""
PASTE = 0.3
"""Probability of copy-paste for rare classes."""
AXES = frozenset({"horizontal", "vertical", "crosswise", "lengthwise", "transverse", "longitudinal"})
"""Words in class names that a quarter turn exchanges."""
SIDES = frozenset({"left", "right", "top", "bottom", "upper", "lower", "upside"})
"""Words in class names that a mirror image exchanges, too."""
_log = logging.getLogger(__name__)


class AugmentationChoice(NamedTuple):
    """Changes of the training settings by name, and the reason of each."""

    changes: dict[str, Any]
    reasons: tuple[str, ...]


def cacheable_augmentations(training: TrainingConfig) -> TrainingConfig:
    """The settings in effect with a frozen encoder: augmentations that give new pixels each time are off.

    A warning names those whose setting is not the default.
    """
    off = [name for name in AUGMENTATIONS if name not in CACHEABLE and getattr(training, name) > 0]
    fields = TrainingConfig.model_fields
    if changed := [name for name in off if getattr(training, name) != fields[name].default]:
        _log.warning(
            "the image encoder is frozen, so these augmentations of the settings are switched off: %s",
            ", ".join(f"{name} {getattr(training, name):g}" for name in changed),
        )
    return training.model_copy(update=dict.fromkeys(off, 0.0))


def choose_by_labels(
    images: Sequence[LabelledImage], vocabulary: Vocabulary, *, frozen: bool = False
) -> AugmentationChoice:
    """The changes that the labels suggest; none where they suggest nothing.

    Args:
        frozen: the training freezes the image encoder, so copy-paste is left out.
    """
    changes: dict[str, Any] = {}
    reasons = []
    counts = Counter(annotation.label for image in images for annotation in image.annotations)
    rare = [name for name, count in counts.items() if count < RARE * fmean(counts.values())]
    if rare:
        shown = ", ".join(f"{name} ({counts[name]} boxes)" for name in sorted(rare))
        if frozen:
            reasons.append(f"no copy-paste for rare classes, as the image encoder is frozen: {shown}")
        else:
            changes |= {"paste": PASTE, "paste_rare": True}
            reasons.append(f"copy-paste for rare classes: {shown}")
    words = {name: set(re.split(r"[\W_]+", name.lower())) for name in vocabulary.names}
    if directed := [name for name, found in words.items() if found & (AXES | SIDES)]:
        changes["turns"] = 0.0
        if any(words[name] & SIDES for name in directed):
            changes["flips"] = 0.0
        off = " and ".join(name for name in ("turns", "flips") if name in changes)
        reasons.append(f"{off} off: a direction is part of {', '.join(directed)}")
    return AugmentationChoice(changes, tuple(reasons))
