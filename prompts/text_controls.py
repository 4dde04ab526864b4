"""A vocabulary in other words: class names alone, random words, two classes' texts swapped.

What a text is worth shows against these. Whoever asks a detector in them changes texts and nothing else: the
classes, their names, their order and the taxonomy stay.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from dsmoe_core.schema import ClassText, Vocabulary

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


def names_only(vocabulary: Vocabulary) -> Vocabulary:
    """Every class and inner node by its name, which is what the encoder is given where there is no text."""
    return _each(vocabulary, lambda text: replace(text, description="", paraphrases=()))


def random_texts(vocabulary: Vocabulary, seed: int) -> Vocabulary:
    """As many random words in place of every description and paraphrase as it has words."""
    drawn = random.Random(seed)  # noqa: S311 - no secret

    def other(text: str) -> str:
        return " ".join(drawn.choices(PLAIN, k=len(text.split())))

    def each(text: ClassText) -> ClassText:
        return replace(text, description=other(_said(text)), paraphrases=tuple(map(other, text.paraphrases)))

    return _each(vocabulary, each)


def swapped(vocabulary: Vocabulary, boxes: Mapping[str, int]) -> Vocabulary:
    """The two classes that have most boxes to be judged on, each with the other one's texts.

    In a set of one class there is nothing to swap.

    Args:
        boxes: number of true boxes by class.
    """
    classes = vocabulary.classes
    most = sorted(range(len(classes)), key=lambda i: -boxes.get(classes[i].name, 0))[:SWAPPED]
    other = dict(zip(most, reversed(most), strict=True))
    given = [classes[other.get(i, i)] for i in range(len(classes))]
    return replace(
        vocabulary,
        classes=tuple(
            replace(one, description=_said(text), paraphrases=text.paraphrases)
            for one, text in zip(classes, given, strict=True)
        ),
    )


WORDS: dict[str, Callable[[Vocabulary, Mapping[str, int], int], Vocabulary]] = {
    "right": lambda vocabulary, _boxes, _seed: vocabulary,
    "name": lambda vocabulary, _boxes, _seed: names_only(vocabulary),
    "random": lambda vocabulary, _boxes, seed: random_texts(vocabulary, seed),
    "swapped": lambda vocabulary, boxes, _seed: swapped(vocabulary, boxes),
}
"""The four, each from a vocabulary, the number of true boxes of its classes, and a seed."""


def _said(text: ClassText) -> str:
    """What the encoder reads of it; a class without a description has its name to give away."""
    return text.description or text.name.replace("_", " ")


def _each(vocabulary: Vocabulary, change: Callable[[ClassText], ClassText]) -> Vocabulary:
    return replace(
        vocabulary,
        classes=tuple(map(change, vocabulary.classes)),
        inner=tuple(map(change, vocabulary.inner)),
    )
