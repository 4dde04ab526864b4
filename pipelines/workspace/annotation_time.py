"""What labelling costs: the time that people spent, by what they had to do on an image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from dsmoe_core.schema import Harvest, Outcome

ALL, NOTHING, SKIPPED = "all", "nothing drawn", "skipped"
_BY_LABOUR = (Outcome.ADDED, Outcome.DELETED, Outcome.RELABELLED, Outcome.MOVED, Outcome.ACCEPTED)
_BY_PEOPLE_S = 0.1  # nobody looks at an image in less: a program answered
KINDS = (ALL, *map(str, reversed(_BY_LABOUR)), NOTHING, SKIPPED)


@dataclass(frozen=True, slots=True)
class Effort:
    """The time that one kind of image took.

    Attributes:
        images: whose time is known; those that a simulated annotator answered do not count.
        per_image: seconds; the median, for people leave their desks with an image open.
        per_box: seconds per box that was judged or drawn, the median over the images; None without boxes.
    """

    images: int
    per_image: float
    per_box: float | None


def effort(harvests: Iterable[Harvest]) -> dict[str, Effort]:
    """People's effort by what was done on an image, and of ``all`` images; what did not occur is absent.

    An image counts once, under the most laborious thing that was done on it: drawing a box, then deleting,
    relabelling, moving, and accepting. What good pre-annotations save is the way from ``added`` to
    ``accepted``.
    """
    kinds: dict[str, list[Harvest]] = {}
    for harvest in harvests:
        if harvest.seconds is not None and harvest.seconds >= _BY_PEOPLE_S:
            kinds.setdefault(_kind(harvest), []).append(harvest)
            if not harvest.skipped:
                kinds.setdefault(ALL, []).append(harvest)
    return {kind: _effort(kinds[kind]) for kind in KINDS if kind in kinds}


def _kind(harvest: Harvest) -> str:
    if harvest.skipped:
        return SKIPPED
    return next((str(outcome) for outcome in _BY_LABOUR if harvest.outcomes.get(outcome)), NOTHING)


def _effort(harvests: list[Harvest]) -> Effort:
    timed = [(h.seconds or 0.0, sum(h.outcomes.values())) for h in harvests]
    per_box = [seconds / boxes for seconds, boxes in timed if boxes]
    return Effort(len(timed), median(s for s, _ in timed), median(per_box) if per_box else None)
