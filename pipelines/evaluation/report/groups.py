"""Metrics per group of images, for example per board design, camera or shift."""

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
"""Name of the group of images that the pattern does not match."""
MAX_GROUPS = 100


def compile_pattern(text: str) -> re.Pattern[str]:
    """Compile the pattern of the option --by.

    Raises:
        SettingsError: it is not a regular expression.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise SettingsError(
            f"--by is {text!r}, which is not a regular expression: {error}",
            "Give one that matches a part of the file names, such as '^[^/]+' for their folder.",
        ) from error


def group_images(pattern: re.Pattern[str], truth: Sequence[LabelledImage]) -> dict[str, list[LabelledImage]]:
    """Group images by the part of their names that the pattern matches.

    The group is named after the pattern's first capture group, or after the whole match if it has none.

    Returns:
        Groups ordered by name; images that the pattern does not match come last, as ``OTHERS``.

    Raises:
        SettingsError: there are more than ``MAX_GROUPS`` groups.
    """
    groups: dict[str, list[LabelledImage]] = {}
    for labelled in truth:
        match = pattern.search(labelled.image.name)
        name = match[1 if pattern.groups else 0] if match else ""
        groups.setdefault(name or OTHERS, []).append(labelled)
    if len(groups) > MAX_GROUPS:
        raise SettingsError(
            f"--by {pattern.pattern!r} makes {len(groups)} groups of {len(truth)} images; "
            f"expected at most {MAX_GROUPS}",
            "Give a pattern that matches a part which several names have in common.",
        )
    return {name: groups[name] for name in sorted(groups, key=lambda name: (name == OTHERS, name))}


def group_names(pattern: re.Pattern[str], images: Sequence[LabelledImage]) -> list[str]:
    """Name of the group of each image.

    Raises:
        SettingsError: as :func:`group_images`.
    """
    grouped = group_images(pattern, images)
    names = {labelled.image.key: name for name, members in grouped.items() for labelled in members}
    return [names[labelled.image.key] for labelled in images]


def group_metrics(
    groups: Mapping[str, Sequence[LabelledImage]],
    predictions: Mapping[str, Prediction],
    tables: EvaluationTables,
    threshold: float,
) -> list[dict[str, Any]]:
    """Metrics of each group as a test set of its own, at the score threshold of all images.

    Args:
        predictions: by image key.
        tables: these predictions, matched on the images of all groups.

    Returns:
        For each group ``name``, ``images``, ``boxes``, ``map50`` and ``map`` (absent without boxes),
        ``precision``, ``recall`` and ``f1`` (absent if undefined), and ``classes``: mAP@.5 of each class that
        has boxes in the group.
    """
    classes, matched = tables.tables.classes, {p.image.key: p for p in tables.matched}
    return [
        {"name": name, **_metrics(truth, coco_tables(predictions, truth, classes), matched, threshold)}
        for name, truth in groups.items()
    ]


def _metrics(
    truth: Sequence[LabelledImage],
    tables: CocoTables,
    matched: Mapping[str, ImageMatches],
    threshold: float,
) -> dict[str, Any]:
    in_group = [matched[labelled.image.key] for labelled in truth]
    counts = operating_point(in_group, tables.classes, threshold).total
    mean = tables.mean()
    per_class = {name: tables.mean(label=name) for name in tables.classes}
    shares = {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
    return {
        "images": len(truth),
        "boxes": sum(len(labelled.annotations) for labelled in truth),
        **({"map50": mean[0], "map": mean[1]} if mean else {}),
        **{name: share for name, share in shares.items() if share is not None},
        "classes": {name: scores[0] for name, scores in per_class.items() if scores},
    }
