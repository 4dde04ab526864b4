"""Figures of groups of images: which board design, camera or shift the model is bad at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dsmoe_core.errors import SettingsError
from dsmoe_core.evaluation.coco_metrics import CocoTables, coco_tables
from dsmoe_core.evaluation.matching import ImageMatches
from dsmoe_core.evaluation.metrics import EvaluationTables
from dsmoe_core.evaluation.operating_point import operating_point
from dsmoe_core.schema import LabelledImage, Prediction

OTHERS = "(others)"
MOST = 100
"""More groups than that are single images rather than groups."""


def compile_pattern(text: str) -> re.Pattern[str]:
    """What groups go by.

    Raises:
        SettingsError: it is no regular expression.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise SettingsError(
            f"--by is {text!r}, which is no regular expression: {error}",
            "Give one that matches a part of the file names, such as '^[^/]+' for their folder.",
        ) from error


def group_images(pattern: re.Pattern[str], truth: Sequence[LabelledImage]) -> dict[str, list[LabelledImage]]:
    """Images by what the pattern's first group, or else the whole of it, matches in their names.

    Names in order; images that it does not match come last, as ``OTHERS``.

    Raises:
        SettingsError: there are more than ``MOST``.
    """
    groups: dict[str, list[LabelledImage]] = {}
    for one in truth:
        found = pattern.search(one.image.name)
        text = found[1 if pattern.groups else 0] if found else ""
        groups.setdefault(text or OTHERS, []).append(one)
    if len(groups) > MOST:
        raise SettingsError(
            f"--by {pattern.pattern!r} makes {len(groups)} groups of {len(truth)} images; "
            f"expected at most {MOST}",
            "Let it match what several names have in common.",
        )
    return {name: groups[name] for name in sorted(groups, key=lambda name: (name == OTHERS, name))}


def group_metrics(
    groups: Mapping[str, Sequence[LabelledImage]],
    detections: Mapping[str, Prediction],
    whole: EvaluationTables,
    threshold: float,
) -> list[dict[str, Any]]:
    """The figures of each group, as if it were the test set, but at the threshold of all images.

    Args:
        detections: by image key.
        whole: these detections, judged on the images of all groups.

    Returns:
        Of each group ``name``, ``images``, ``boxes``, ``map50`` and ``map`` (absent without boxes),
        ``precision``, ``recall`` and ``f1`` (absent where undefined), and ``classes``: the mAP@.5 of each
        that the group has boxes of.
    """
    classes, matched = whole.tables.classes, {one.image.key: one for one in whole.matched}
    return [
        {
            "name": name,
            **_figures(truth, coco_tables(detections, truth, classes), matched, threshold),
        }
        for name, truth in groups.items()
    ]


def _figures(
    truth: Sequence[LabelledImage], tables: CocoTables, matched: Mapping[str, ImageMatches], threshold: float
) -> dict[str, Any]:
    own = [matched[one.image.key] for one in truth]
    counts = operating_point(own, tables.classes, threshold).total
    mean = tables.mean()
    each = {name: tables.mean(label=name) for name in tables.classes}
    shares = {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
    return {
        "images": len(truth),
        "boxes": sum(len(one.annotations) for one in truth),
        **({"map50": mean[0], "map": mean[1]} if mean else {}),
        **{name: share for name, share in shares.items() if share is not None},
        "classes": {name: scores[0] for name, scores in each.items() if scores},
    }
