"""A refinement: which pairs are confused, which texts were tried, what each of them did, what it cost."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

from pydantic import Field

from dsmoe_core.config import Frozen
from prompts.class_book import ClassBook


class Confused(Frozen):
    """Two classes that are taken for each other.

    Attributes:
        found: boxes that are the first and that the detector calls the second, and the other way round.
        corrected: pre-annotations that were shown as the first and that people made the second, and the
        other way.
    """

    first: str
    second: str
    found: tuple[int, int] = (0, 0)
    corrected: tuple[int, int] = (0, 0)

    @property
    def times(self) -> int:
        """How often, all in all."""
        return sum(self.found) + sum(self.corrected)

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.first} / {self.second}"


class Scores(Frozen):
    """What a class book does to the detector; all higher is better.

    Attributes:
        classes: average precision at IoU 0.5 of each class, 0 to 1.
        pairs: by ``Confused.title``: probability of the true class less that of the other one, the mean over
            the true boxes of each of the two and then over the two, -1 to 1.
    """

    classes: dict[str, float]
    pairs: dict[str, float]

    @property
    def mean_ap(self) -> float:
        """Over the classes."""
        return _mean(self.classes)

    @property
    def mean_margin(self) -> float:
        """Over the pairs."""
        return _mean(self.pairs)

    @property
    def total(self) -> float:
        """The figure by which the best candidate is chosen: mean precision and mean margin in equal parts."""
        return (self.mean_ap + self.mean_margin) / 2

    @property
    def objectives(self) -> tuple[float, ...]:
        """Every figure, in an order that is the same for all candidates of a refinement."""
        return tuple(figures[name] for figures in (self.classes, self.pairs) for name in sorted(figures))


class Evaluator(Protocol):
    """Says what a class book does to the detector. The same book always has the same scores."""

    def score(self, book: ClassBook) -> Scores:
        """One figure per class and per confused pair.

        Raises:
            ClassBookError: the book lacks a class that is judged.
            ModelError: the detector cannot be used.
        """
        ...


class Wording(Frozen):
    """What is said of one class; ``author`` is the model that said it."""

    description: str
    paraphrases: tuple[str, ...] = ()
    author: str


class Candidate(Frozen):
    """Texts that were tried; ``id`` 0 is the book as it was, without texts of its own.

    Attributes:
        parent: the candidate that it was made from.
        pair: title of the pair that it should tell apart.
        difference: what the model holds to be the difference between the two.
        texts: by class, every text that is not the start's.
    """

    id: int
    parent: int | None = None
    pair: str | None = None
    difference: str = ""
    texts: dict[str, Wording] = Field(default_factory=dict)
    scores: Scores


class Spent(Frozen):
    """What a refinement has cost so far, over all its runs.

    Attributes:
        calls: replies of the language model, those included that were of no use.
        tokens: of it, read and written, reasoning included.
        seconds: scoring included.
    """

    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        calls = "1 call" if self.calls == 1 else f"{self.calls} calls"
        return f"{calls}, {self.tokens:,} tokens, {self.seconds:.0f} s"


class Refinement(Frozen):
    """Everything about one refinement; whoever has it can go on with it.

    Attributes:
        book: version of the class book that it starts from.
        evaluator: what scores it, in words; candidates of another evaluator cannot be compared.
        images: keys of those that it is scored on.
        stopped: why it last stopped; empty while it runs.
    """

    id: str
    book: str
    evaluator: str
    images: tuple[str, ...] = ()
    pairs: tuple[Confused, ...] = Field(min_length=1)
    candidates: tuple[Candidate, ...] = ()
    spent: Spent = Spent()
    stopped: str = ""

    @property
    def rounds(self) -> int:
        """How often every pair had its turn."""
        return max(0, len(self.candidates) - 1) // len(self.pairs)

    @property
    def best(self) -> Candidate:
        """The highest total; the start where no candidate has more than it, or else the earliest."""
        return max(self.candidates, key=lambda c: (c.scores.total, -c.id))

    @property
    def gained(self) -> bool:
        """Whether there are better texts than at the start, by more than the noise of floating point."""
        return self.best.scores.total - self.candidates[0].scores.total > 1e-9

    def front(self) -> list[Candidate]:
        """Candidates that no other one dominates: beats in one figure and equals in all others.

        Of several with the same figures the earliest is there.
        """
        kept: list[Candidate] = []
        for one in self.candidates:
            rivals = [c for c in self.candidates if c is not one]
            if not any(_dominates(other, one) for other in rivals):
                kept.append(one)
        return kept

    def parent(self, seed: int) -> Candidate:
        """A candidate of the front, drawn by the number of figures in which it is the best.

        The draw depends on the seed and the candidates alone, so that an interrupted refinement goes on as it
        would have. Source: Agrawal et al., "GEPA: Reflective Prompt Evolution", 2025, Algorithm 2.
        """
        front = self.front()
        drawn = random.Random(f"{seed}/{len(self.candidates)}")  # noqa: S311 - no secret
        return drawn.choices(front, wins(front))[0]


def wins(front: Sequence[Candidate]) -> list[int]:
    """In how many figures each candidate is the best, alone or with others."""
    rows = [c.scores.objectives for c in front]
    best = [max(column) for column in zip(*rows, strict=True)]
    return [sum(value == top for value, top in zip(row, best, strict=True)) for row in rows]


def worded(start: ClassBook, texts: Mapping[str, Wording]) -> ClassBook:
    """The start with these texts.

    Raises:
        ClassBookError: a class book cannot hold one of them.
    """
    book = start
    for name, wording in texts.items():
        book = book.with_description(
            name, wording.description, "model", wording.author, paraphrases=wording.paraphrases
        )
    return book


def _dominates(one: Candidate, other: Candidate) -> bool:
    ours, theirs = one.scores.objectives, other.scores.objectives
    if ours == theirs:
        return one.id < other.id
    return all(a >= b for a, b in zip(ours, theirs, strict=True))


def _mean(figures: dict[str, float]) -> float:
    return sum(figures.values()) / len(figures) if figures else 0.0
