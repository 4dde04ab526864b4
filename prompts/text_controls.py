"""Control texts for a vocabulary: names only, random words, or the texts of two classes swapped.

The effect of the descriptions is measured against these controls. They change texts only: the classes, their
names, their order and the taxonomy stay the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from dsmoe_core.schema import ClassText, Vocabulary

_WORDS = """
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
NEUTRAL_WORDS = tuple(_WORDS.split())
"""Words that do not describe defects."""


def names_only(vocabulary: Vocabulary) -> Vocabulary:
    """The vocabulary without descriptions; the text encoder then reads the name of a class."""
    return _map_texts(vocabulary, lambda text: replace(text, description="", paraphrases=()))


def random_texts(vocabulary: Vocabulary, seed: int) -> Vocabulary:
    """The vocabulary with every description and paraphrase replaced by as many random words."""
    generator = random.Random(seed)  # noqa: S311  # not for cryptography

    def random_words(text: str) -> str:
        return " ".join(generator.choices(NEUTRAL_WORDS, k=len(text.split())))

    def randomize(text: ClassText) -> ClassText:
        description = random_words(_encoded_text(text))
        return replace(text, description=description, paraphrases=tuple(map(random_words, text.paraphrases)))

    return _map_texts(vocabulary, randomize)


def swapped_texts(vocabulary: Vocabulary, boxes: Mapping[str, int]) -> Vocabulary:
    """The vocabulary with the texts of the two classes with most boxes swapped; one class stays as it is.

    Args:
        boxes: number of true boxes by class.
    """
    classes = vocabulary.classes
    largest = sorted(range(len(classes)), key=lambda i: -boxes.get(classes[i].name, 0))[:2]
    source = dict(zip(largest, reversed(largest), strict=True))
    texts = [classes[source.get(i, i)] for i in range(len(classes))]
    return replace(
        vocabulary,
        classes=tuple(
            replace(entry, description=_encoded_text(text), paraphrases=text.paraphrases)
            for entry, text in zip(classes, texts, strict=True)
        ),
    )


TEXT_CONTROLS: dict[str, Callable[[Vocabulary, Mapping[str, int], int], Vocabulary]] = {
    "right": lambda vocabulary, _boxes, _seed: vocabulary,
    "name": lambda vocabulary, _boxes, _seed: names_only(vocabulary),
    "random": lambda vocabulary, _boxes, seed: random_texts(vocabulary, seed),
    "swapped": lambda vocabulary, boxes, _seed: swapped_texts(vocabulary, boxes),
}
"""The unchanged vocabulary and the three controls; arguments: vocabulary, true boxes by class, seed."""


def _encoded_text(text: ClassText) -> str:
    """The text that the encoder reads for a class: its description, or its name if it has none."""
    return text.description or text.name.replace("_", " ")


def _map_texts(vocabulary: Vocabulary, change: Callable[[ClassText], ClassText]) -> Vocabulary:
    return replace(
        vocabulary,
        classes=tuple(map(change, vocabulary.classes)),
        inner=tuple(map(change, vocabulary.inner)),
    )
