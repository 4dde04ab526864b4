"""A vocabulary in other words: class names alone, random words, two classes' texts swapped."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from dsmoe_core.schema import ClassText, Vocabulary
from pipelines.benchmarks.contest.protocol import Lesson

_SAY_NOTHING_OF_DEFECTS = """
afternoon answer autumn bakery banjo barley basket bishop blanket breakfast bridge brother camel candle
captain carpet castle cheese chicken choir cinema coffee concert cousin cricket curtain dancer daughter
dinner doctor donkey dragon eagle evening farmer father feather festival fiddle forest fountain friday
garden giraffe grammar grandmother guitar harbour harvest helmet history holiday honey island january jacket
journey judge kettle kitchen ladder language lawyer lemon library lion market meadow melody mirror monday
monkey morning mountain music neighbour novel ocean onion orange orchard oven palace parrot pencil pepper
piano picnic pillow poem poetry potato prince pupil rabbit rain rice river sailor saturday school season
sentence shepherd sister song soup spring station story sugar summer sunday sweater table teacher theatre
thunder ticket tiger tomato tower train travel tulip uncle valley village violin voyage waiter wedding
weekend whale window winter wolf wool yesterday zebra
"""
PLAIN = tuple(_SAY_NOTHING_OF_DEFECTS.split())
SWAPPED = 2


def right(lesson: Lesson, seed: int) -> Vocabulary:
    """The descriptions and paraphrases as they are."""
    del seed
    return lesson.vocabulary


def names_only(lesson: Lesson, seed: int) -> Vocabulary:
    """Every class and inner node by its name, which is what the encoder is given where there is no text."""
    del seed
    return _each(lesson.vocabulary, lambda text: replace(text, description="", paraphrases=()))


def random_words(lesson: Lesson, seed: int) -> Vocabulary:
    """As many random words in place of every description and paraphrase as it has words."""
    drawn = random.Random(seed)  # noqa: S311 - no secret

    def other(text: str) -> str:
        return " ".join(drawn.choices(PLAIN, k=len(text.split())))

    def each(text: ClassText) -> ClassText:
        said = text.description or text.name.replace("_", " ")
        return replace(text, description=other(said), paraphrases=tuple(map(other, text.paraphrases)))

    return _each(lesson.vocabulary, each)


def swapped(lesson: Lesson, seed: int) -> Vocabulary:
    """The two classes that have most boxes to be judged on, each with the other one's texts.

    In a set of one class there is nothing to swap.
    """
    del seed
    classes = lesson.vocabulary.classes
    boxes = Counter(a.label for one in lesson.val for a in one.annotations)
    most = sorted(range(len(classes)), key=lambda i: -boxes[classes[i].name])[:SWAPPED]
    other = dict(zip(most, reversed(most), strict=True))
    given = [classes[other.get(i, i)] for i in range(len(classes))]
    return replace(
        lesson.vocabulary,
        classes=tuple(
            replace(one, description=_said(text), paraphrases=text.paraphrases)
            for one, text in zip(classes, given, strict=True)
        ),
    )


WORDS: dict[str, Callable[[Lesson, int], Vocabulary]] = {
    "right": right,
    "name": names_only,
    "random": random_words,
    "swapped": swapped,
}


def _said(text: ClassText) -> str:
    """What the encoder reads of it; a class without a description has its name to give away."""
    return text.description or text.name.replace("_", " ")


def _each(vocabulary: Vocabulary, change: Callable[[ClassText], ClassText]) -> Vocabulary:
    return replace(
        vocabulary,
        classes=tuple(map(change, vocabulary.classes)),
        inner=tuple(map(change, vocabulary.inner)),
    )
