"""Evaluator that scores class books by keywords, without a detector, for fast tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from prompts.class_book import ClassBook
from prompts.refinement import ConfusedPair, TextScores


class FakeEvaluator:
    """Average precision of a class is the share of its keywords in its description.

    Args:
        keywords: by class.

    Attributes:
        scored: versions of the class books that were scored.
    """

    def __init__(self, keywords: Mapping[str, Collection[str]], pairs: Sequence[ConfusedPair]) -> None:
        self._keywords = keywords
        self._pairs = pairs
        self.scored: list[str] = []

    def score(self, book: ClassBook) -> TextScores:
        """See Evaluator; a pair's margin is lower if a description has keywords of the other class."""
        self.scored.append(book.version)
        class_ap = {name: self._share(book, name, name) for name in self._keywords}
        pair_margins = {
            pair.title: sum(
                class_ap[own] - self._share(book, own, other)
                for own, other in ((pair.first, pair.second), (pair.second, pair.first))
            )
            / 2
            for pair in self._pairs
        }
        return TextScores(class_ap=class_ap, pair_margins=pair_margins)

    def _share(self, book: ClassBook, described: str, keywords_of: str) -> float:
        """Share of one class's keywords in the description of another class."""
        words = set(book.entry(described).description.casefold().split())
        keywords = self._keywords[keywords_of]
        return sum(keyword in words for keyword in keywords) / len(keywords)
