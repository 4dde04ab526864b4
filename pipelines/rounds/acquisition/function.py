"""Interface of acquisition functions: they score the unlabelled images of a round. Higher = label sooner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dsmoe_core.schema import Prediction


@dataclass(frozen=True, slots=True)
class Candidates:
    """The images that a round may select.

    Attributes:
        keys: image keys, without duplicates.
        predict: the champion's predictions on all candidates, one at a time. The first call runs the detector
            on images without a stored prediction, so a function that needs no predictions is much faster.
        seed: for functions that sample; the same seed gives the same scores.
    """

    keys: Sequence[str]
    predict: Callable[[], Iterable[Prediction]]
    seed: int


@dataclass(frozen=True, slots=True)
class AcquisitionFunction:
    """An acquisition function.

    Attributes:
        description: what it favours, in one sentence.
        score: a finite score for every candidate, by image key. It may depend on nothing but its argument.
    """

    description: str
    score: Callable[[Candidates], Mapping[str, float]]
