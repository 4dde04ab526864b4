"""The uncertainty scores of a detection: who should act on each, and which error it predicts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Addressee(StrEnum):
    """Who can remove the cause of an uncertainty."""

    ANNOTATOR = "annotator"
    DOMAIN_EXPERT = "domain expert"
    ENGINEER = "ML engineer"


@dataclass(frozen=True, slots=True)
class ScoreKind:
    """One kind of score.

    Attributes:
        measures: what the raw score is.
        error: the error whose probability the calibrated score is.
    """

    addressee: Addressee
    measures: str
    error: str


_WRONG_CLASS = "the class is wrong, given that the box has an IoU of 0.5 or more with a true box"
CLASS, CLASS_MARGIN = "class", "class_margin"
LOCALISATION, LOCALISATION_75 = "localisation", "localisation_75"
DESCRIPTION, NOVELTY, NOVELTY_OTHER = "description", "novelty", "novelty_other"
ROUTING, ROUTING_ENTROPY = "routing", "routing_entropy"

SCORE_KINDS: dict[str, ScoreKind] = {
    CLASS: ScoreKind(
        Addressee.ANNOTATOR, "entropy of the class distribution of the box, 0 to 1", _WRONG_CLASS
    ),
    CLASS_MARGIN: ScoreKind(
        Addressee.ANNOTATOR, "1 minus the lead of the class over the next one, 0 to 2", _WRONG_CLASS
    ),
    LOCALISATION: ScoreKind(
        Addressee.ANNOTATOR,
        "spread of the boxes that non-maximum suppression merged into the box, 0 to 1",
        "the IoU with the true box is below 0.5, given that it is 0.1 or more",
    ),
    DESCRIPTION: ScoreKind(
        Addressee.DOMAIN_EXPERT,
        "how probable another class is, on average over the texts of the class, 0 to 1",
        _WRONG_CLASS,
    ),
    NOVELTY: ScoreKind(
        Addressee.DOMAIN_EXPERT,
        "distance of the features in the box from those of the training boxes, 0 to 2",
        "the object is of a class that the class book lacks, if one class in C + 1 is missing",
    ),
    ROUTING: ScoreKind(
        Addressee.ENGINEER,
        "difference of the detection if the next-best experts replace the selected ones, 0 to 1",
        "the detection is false",
    ),
    ROUTING_ENTROPY: ScoreKind(
        Addressee.ENGINEER,
        "entropy of the router's distribution at the box's centre, 0 to 1",
        "the detection is false",
    ),
}
"""By name. A detection has the scores that its model, class book and runtime allow."""
