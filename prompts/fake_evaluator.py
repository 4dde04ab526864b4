"""A detector that understands a few words: scores class books without a network, for fast tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from prompts.class_book import ClassBook
from prompts.refinement import Confused, Scores


class FakeEvaluator:
    """A class is found as far as its description has the words that tell it.

    Args:
        telling: the words of each class that is judged.

    Attributes:
        scored: versions of the books that it was given.
    """

    def __init__(self, telling: Mapping[str, Collection[str]], pairs: Sequence[Confused]) -> None:
        self._telling = telling
        self._pairs = pairs
        self.scored: list[str] = []

    def score(self, book: ClassBook) -> Scores:
        """See Evaluator; a pair's margin is lower where a text has the other class's words too."""
        self.scored.append(book.version)
        classes = {name: self._share(book, name, name) for name in self._telling}
        pairs = {
            pair.title: sum(
                classes[own] - self._share(book, own, other)
                for own, other in ((pair.first, pair.second), (pair.second, pair.first))
            )
            / 2
            for pair in self._pairs
        }
        return Scores(classes=classes, pairs=pairs)

    def _share(self, book: ClassBook, described: str, telling: str) -> float:
        """The share of one class's telling words that another one's description has."""
        said = set(book.entry(described).description.casefold().split())
        words = self._telling[telling]
        return sum(word in said for word in words) / len(words)
