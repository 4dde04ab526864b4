"""Annotation effort: the time that annotators spent on images, by what they had to do on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from dsmoe_core.schema import Harvest, Outcome

ALL, NOTHING, SKIPPED = "all", "nothing drawn", "skipped"
_BY_LABOUR = (Outcome.ADDED, Outcome.DELETED, Outcome.RELABELLED, Outcome.MOVED, Outcome.ACCEPTED)
_MIN_HUMAN_SECONDS = 0.1  # a faster answer came from a program
KINDS = (ALL, *map(str, reversed(_BY_LABOUR)), NOTHING, SKIPPED)
"""Kinds of images, by the most laborious correction on them."""


@dataclass(frozen=True, slots=True)
class Effort:
    """The annotation time of one kind of image.

    Attributes:
        images: images with a known time, without those that a simulated annotator answered.
        per_image: median seconds per image; the mean would include breaks with an image open.
        per_box: median over the images of seconds per box; None if there were no boxes.
    """

    images: int
    per_image: float
    per_box: float | None


def effort(harvests: Iterable[Harvest]) -> dict[str, Effort]:
    """Annotation effort by kind of image; kinds that did not occur are absent.

    An image counts once, under the most laborious correction on it: adding a box, then deleting, relabelling,
    moving, and accepting one. ``all`` has every image that was not skipped.
    """
    by_kind: dict[str, list[Harvest]] = {}
    for harvest in harvests:
        if harvest.seconds is not None and harvest.seconds >= _MIN_HUMAN_SECONDS:
            by_kind.setdefault(_kind(harvest), []).append(harvest)
            if not harvest.skipped:
                by_kind.setdefault(ALL, []).append(harvest)
    return {kind: _effort(by_kind[kind]) for kind in KINDS if kind in by_kind}


def _kind(harvest: Harvest) -> str:
    if harvest.skipped:
        return SKIPPED
    return next((str(outcome) for outcome in _BY_LABOUR if harvest.outcomes.get(outcome)), NOTHING)


def _effort(harvests: list[Harvest]) -> Effort:
    times = [(h.seconds or 0.0, sum(h.outcomes.values())) for h in harvests]
    per_box = [seconds / boxes for seconds, boxes in times if boxes]
    return Effort(len(times), median(s for s, _ in times), median(per_box) if per_box else None)
