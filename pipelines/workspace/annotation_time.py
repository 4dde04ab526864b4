"""Annotation effort: the time that annotators spent on images, by what they had to do on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from pydantic import Field

from dsmoe_core.config import Frozen
from dsmoe_core.schema import Harvest, Outcome

ALL, NOTHING, SKIPPED = "all", "nothing drawn", "skipped"
_BY_LABOUR = (Outcome.ADDED, Outcome.DELETED, Outcome.RELABELLED, Outcome.MOVED, Outcome.ACCEPTED)
MIN_HUMAN_SECONDS = 0.1
"""A faster answer came from a program."""
KINDS = (ALL, *map(str, reversed(_BY_LABOUR)), NOTHING, SKIPPED)
"""Kinds of images, by the most laborious correction on them."""
IMAGE = "image"
DEFAULT_SECONDS: dict[str, float] = {
    IMAGE: 2.0,
    Outcome.ACCEPTED: 1.6,
    Outcome.MOVED: 5.0,
    Outcome.RELABELLED: 4.0,
    Outcome.DELETED: 2.0,
    Outcome.ADDED: 10.0,
}
"""Assumed seconds of annotator time until a workspace has measured its own: looking at an image, and each
correction of a box. Accepting is the verification of a box in Papadopoulos et al., "We don't need no bounding
boxes", 2016; adding is extreme clicking (7 s, Papadopoulos et al., "Extreme clicking", 2017) and 3 s for the
class. The others are estimates between these two."""
_PRIOR_IMAGES = 10.0
_BREAK = 10.0


class CorrectionSeconds(Frozen):
    """Seconds of annotator time for one box, by what has to be done with it; see ``seconds_by_kind``."""

    accepted: float = Field(DEFAULT_SECONDS[Outcome.ACCEPTED], ge=0)
    moved: float = Field(DEFAULT_SECONDS[Outcome.MOVED], ge=0)
    relabelled: float = Field(DEFAULT_SECONDS[Outcome.RELABELLED], ge=0)
    deleted: float = Field(DEFAULT_SECONDS[Outcome.DELETED], ge=0)
    added: float = Field(DEFAULT_SECONDS[Outcome.ADDED], ge=0)
    images: int = Field(0, ge=0, description="timed images of the estimate; 0: the assumed seconds")

    def of(self, outcome: Outcome) -> float:
        """Seconds of one box with this outcome."""
        return float(getattr(self, str(outcome)))

    def total(self, counts: Mapping[Outcome, int]) -> float:
        """Seconds of all boxes of an image or of a set of images."""
        return sum(self.of(outcome) * count for outcome, count in counts.items())


def correction_seconds(harvests: Iterable[Harvest]) -> CorrectionSeconds:
    """The seconds of ``seconds_by_kind`` for one box each, without those for looking at the image."""
    harvests = list(harvests)
    seconds = seconds_by_kind(harvests)
    images = sum(by_person(h) and not h.skipped for h in harvests)
    return CorrectionSeconds(**{str(o): round(seconds[o], 2) for o in Outcome}, images=images)


def by_person(harvest: Harvest) -> bool:
    """Whether the time is known and is that of a person."""
    return harvest.seconds is not None and harvest.seconds >= MIN_HUMAN_SECONDS


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
        if by_person(harvest):
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


def seconds_by_kind(harvests: Iterable[Harvest]) -> dict[str, float]:
    """Seconds of annotator time for looking at an image and for each correction of a box.

    Non-negative least squares of the seconds of the images over their numbers of corrections. It is drawn
    towards ``DEFAULT_SECONDS``, which count as much as ``_PRIOR_IMAGES`` images, so few images change little.
    An image that took over ``_BREAK`` times the median is left out: its time includes a break.

    Args:
        harvests: of all images; those without a time, skipped ones and simulated ones are left out.

    Returns:
        Seconds by ``IMAGE`` and by ``Outcome``.
    """
    from scipy.optimize import nnls  # takes a fraction of a second, which commands that only read save

    timed = [(h.seconds or 0.0, h.outcomes) for h in harvests if by_person(h) and not h.skipped]
    limit = _BREAK * median(s for s, _ in timed) if timed else 0.0
    kinds = list(DEFAULT_SECONDS)
    rows = [[1.0, *(float(o.get(Outcome(k), 0)) for k in kinds[1:])] for s, o in timed if s <= limit]
    weight = math.sqrt(_PRIOR_IMAGES)
    prior = [[weight if i == k else 0.0 for i in range(len(kinds))] for k in range(len(kinds))]
    targets = [s for s, _ in timed if s <= limit] + [weight * s for s in DEFAULT_SECONDS.values()]
    found, _ = nnls(np.array(rows + prior), np.array(targets))
    return dict(zip(kinds, map(float, found), strict=True))
