"""Chooses augmentations by the labels: copy-paste for rare classes, no rotation if a class is a direction."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from dsmoe_core.schema import LabelledImage, Vocabulary

RARE = 0.25
"""A class is rare if it has fewer boxes than this share of the mean over the classes."""
PASTE = 0.3
"""Probability of copy-paste for rare classes."""
AXES = frozenset({"horizontal", "vertical", "crosswise", "lengthwise", "transverse", "longitudinal"})
"""Words in class names that a quarter turn exchanges."""
SIDES = frozenset({"left", "right", "top", "bottom", "upper", "lower", "upside"})
"""Words in class names that a mirror image exchanges, too."""


class AugmentationChoice(NamedTuple):
    """Changes of the training settings by name, and the reason of each."""

    changes: dict[str, Any]
    reasons: tuple[str, ...]


def choose_by_labels(images: Sequence[LabelledImage], vocabulary: Vocabulary) -> AugmentationChoice:
    """The changes that the labels suggest; none where they suggest nothing."""
    changes: dict[str, Any] = {}
    reasons = []
    counts = Counter(annotation.label for image in images for annotation in image.annotations)
    rare = [name for name, count in counts.items() if count < RARE * fmean(counts.values())]
    if rare:
        changes |= {"paste": PASTE, "paste_rare": True}
        shown = ", ".join(f"{name} ({counts[name]} boxes)" for name in sorted(rare))
        reasons.append(f"copy-paste for rare classes: {shown}")
    words = {name: set(re.split(r"[\W_]+", name.lower())) for name in vocabulary.names}
    if directed := [name for name, found in words.items() if found & (AXES | SIDES)]:
        changes["turns"] = 0.0
        if any(words[name] & SIDES for name in directed):
            changes["flips"] = 0.0
        off = " and ".join(name for name in ("turns", "flips") if name in changes)
        reasons.append(f"{off} off: a direction is part of {', '.join(directed)}")
    return AugmentationChoice(changes, tuple(reasons))
