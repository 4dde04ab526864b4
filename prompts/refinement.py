"""State of a refinement of class descriptions: confused pairs, candidates with their scores, and the cost.

``prompts.refine`` is the algorithm that extends this state.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

from pydantic import Field

from dsmoe_core.config import Frozen
from prompts.class_book import ClassBook


class ConfusedPair(Frozen):
    """Two classes that are confused with each other.

    Attributes:
        detector: number of true boxes of the first class that the detector predicts as the second, and of the
            second that it predicts as the first.
        annotators: number of pre-annotations of the first class that annotators relabelled to the second, and
            of the second that they relabelled to the first.
    """

    first: str
    second: str
    detector: tuple[int, int] = (0, 0)
    annotators: tuple[int, int] = (0, 0)

    @property
    def count(self) -> int:
        """Sum of all confusions and corrections."""
        return sum(self.detector) + sum(self.annotators)

    @property
    def title(self) -> str:
        """Name of the pair in tables and messages; also its key in ``TextScores.pair_margins``."""
        return f"{self.first} / {self.second}"


class TextScores(Frozen):
    """Metrics of the detector with one class book; higher is better.

    Attributes:
        class_ap: average precision at IoU 0.5 of each class, 0 to 1.
        pair_margins: by ``ConfusedPair.title``, the probability of the true class minus that of the other
            class of the pair: the mean over the true boxes of each class, then over the two classes, -1 to 1.
    """

    class_ap: dict[str, float]
    pair_margins: dict[str, float]

    @property
    def mean_ap(self) -> float:
        """Mean average precision over the classes."""
        return _mean(self.class_ap)

    @property
    def mean_margin(self) -> float:
        """Mean margin over the pairs."""
        return _mean(self.pair_margins)

    @property
    def total(self) -> float:
        """Mean of ``mean_ap`` and ``mean_margin``; the best candidate has the highest total."""
        return (self.mean_ap + self.mean_margin) / 2

    @property
    def objectives(self) -> tuple[float, ...]:
        """All metrics, in the same order for all candidates of a refinement."""
        return tuple(
            metrics[name] for metrics in (self.class_ap, self.pair_margins) for name in sorted(metrics)
        )


class Evaluator(Protocol):
    """Scores a class book with a detector. Equal books get equal scores."""

    def score(self, book: ClassBook) -> TextScores:
        """Metrics per class and per confused pair.

        Raises:
            ClassBookError: the book lacks a class of the evaluation images.
            ModelError: the detector cannot be used.
        """
        ...


class CandidateDescription(Frozen):
    """A generated description of one class; ``author`` is the name of the language model."""

    description: str
    paraphrases: tuple[str, ...] = ()
    author: str


class Candidate(Frozen):
    """A set of class descriptions with its scores; the candidate with ``id`` 0 is the unchanged class book.

    Attributes:
        parent: id of the candidate that it was derived from.
        pair: title of the confused pair that it was generated for.
        difference: the visible difference between the two classes, as the model described it.
        descriptions: by class, every description that differs from the original class book.
    """

    id: int
    parent: int | None = None
    pair: str | None = None
    difference: str = ""
    descriptions: dict[str, CandidateDescription] = Field(default_factory=dict)
    scores: TextScores


class RefinementCost(Frozen):
    """Cost of a refinement so far, over all its runs.

    Attributes:
        calls: replies of the language model, invalid ones included.
        tokens: prompt and completion tokens, reasoning included.
        seconds: elapsed time, scoring included.
    """

    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        calls = "1 call" if self.calls == 1 else f"{self.calls} calls"
        return f"{calls}, {self.tokens:,} tokens, {self.seconds:.0f} s"


class Refinement(Frozen):
    """Complete state of a refinement; ``prompts.refine.refine`` can continue from it.

    Attributes:
        book: version of the original class book.
        evaluator: description of the evaluator; scores of different evaluators cannot be compared.
        images: keys of the evaluation images.
        stop_reason: why it stopped last; empty while it runs.
    """

    id: str
    book: str
    evaluator: str
    images: tuple[str, ...] = ()
    pairs: tuple[ConfusedPair, ...] = Field(min_length=1)
    candidates: tuple[Candidate, ...] = ()
    cost: RefinementCost = RefinementCost()
    stop_reason: str = ""

    @property
    def rounds(self) -> int:
        """Number of completed rounds; in each round every pair gets one candidate."""
        return max(0, len(self.candidates) - 1) // len(self.pairs)

    @property
    def best(self) -> Candidate:
        """The candidate with the highest total, the earliest one among equals."""
        return max(self.candidates, key=lambda c: (c.scores.total, -c.id))

    @property
    def is_improved(self) -> bool:
        """Whether the best total exceeds that of the original book by more than floating-point noise."""
        return self.best.scores.total - self.candidates[0].scores.total > 1e-9

    def pareto_front(self) -> list[Candidate]:
        """Candidates that no other candidate dominates; of candidates with equal metrics the earliest."""
        return [
            candidate
            for candidate in self.candidates
            if not any(_dominates(rival, candidate) for rival in self.candidates if rival is not candidate)
        ]

    def sample_parent(self, seed: int) -> Candidate:
        """Sample a candidate of the Pareto front, weighted by the number of metrics in which it is the best.

        The sample depends on the seed and the candidates alone, so an interrupted refinement continues as it
        would have. Source: Agrawal et al., "GEPA: Reflective Prompt Evolution", 2025, Algorithm 2.
        """
        front = self.pareto_front()
        generator = random.Random(f"{seed}/{len(self.candidates)}")  # noqa: S311  # not for cryptography
        return generator.choices(front, count_best_metrics(front))[0]


def count_best_metrics(candidates: Sequence[Candidate]) -> list[int]:
    """For each candidate, the number of metrics in which none of the others is better."""
    rows = [c.scores.objectives for c in candidates]
    best = [max(column) for column in zip(*rows, strict=True)]
    return [sum(value == top for value, top in zip(row, best, strict=True)) for row in rows]


def apply_descriptions(book: ClassBook, descriptions: Mapping[str, CandidateDescription]) -> ClassBook:
    """The class book with these descriptions instead of its own.

    Raises:
        ClassBookError: a description is not valid in a class book.
    """
    for name, text in descriptions.items():
        book = book.with_description(
            name, text.description, "model", text.author, paraphrases=text.paraphrases
        )
    return book


def _dominates(candidate: Candidate, rival: Candidate) -> bool:
    """Whether the candidate is at least equal in all metrics and better in one, or equal and earlier."""
    ours, theirs = candidate.scores.objectives, rival.scores.objectives
    if ours == theirs:
        return candidate.id < rival.id
    return all(a >= b for a, b in zip(ours, theirs, strict=True))


def _mean(metrics: Mapping[str, float]) -> float:
    return sum(metrics.values()) / len(metrics) if metrics else 0.0
