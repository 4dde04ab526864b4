"""Tests of augmentations that are chosen by the labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.augment.choice import PASTE, cacheable_augmentations, choose_by_labels
from dsmoe_core.data.batches import AUGMENTATIONS, TrainingSet
from dsmoe_core.data.letterbox import LetterboxReader
from dsmoe_core.schema import Annotation, Box, ClassText, LabelledImage, Vocabulary

BOX = Box(10.0, 10.0, 30.0, 30.0)


def labelled(images: list[LabelledImage], labels: list[str]) -> list[LabelledImage]:
    """Images with one box each; the images of the fixture are repeated."""
    return [
        replace(images[i % len(images)], annotations=(Annotation(BOX, label),))
        for i, label in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("counts", "changes"),
    [
        ({"crack": 10, "dent": 9}, {}),
        ({"crack": 40, "dent": 2}, {"paste": PASTE, "paste_rare": True}),
        ({"crack": 5, "horizontal scratch": 5}, {"turns": 0.0}),
        ({"crack": 5, "left_edge": 5}, {"turns": 0.0, "flips": 0.0}),
        ({"brightness": 5, "stopped": 5}, {}),
    ],
)
def test_changes_follow_the_labels(
    counts: dict[str, int], changes: dict[str, Any], images: list[LabelledImage]
) -> None:
    labels = [name for name, count in counts.items() for _ in range(count)]
    vocabulary = Vocabulary(tuple(ClassText(name, name) for name in counts))
    choice = choose_by_labels(labelled(images, labels), vocabulary)
    assert choice.changes == changes
    assert len(choice.reasons) == ("paste" in changes) + ("turns" in changes)
    TrainingConfig.model_validate(choice.changes)


def test_nothing_is_pasted_for_a_frozen_encoder(images: list[LabelledImage]) -> None:
    labels = ["crack"] * 40 + ["left dent"] * 2
    vocabulary = Vocabulary((ClassText("crack", "c"), ClassText("left dent", "d")))
    data = labelled(images, labels)
    trained, frozen = (choose_by_labels(data, vocabulary, frozen=frozen) for frozen in (False, True))
    assert trained.changes == {"paste": PASTE, "paste_rare": True, "turns": 0.0, "flips": 0.0}
    assert frozen.changes == {"turns": 0.0, "flips": 0.0}
    assert len(frozen.reasons) == 2


def test_a_frozen_encoder_switches_off_augmentations_that_make_new_pixels() -> None:
    on = TrainingConfig.model_validate(dict.fromkeys(AUGMENTATIONS, 0.4))
    fixed = cacheable_augmentations(on)
    assert {name: getattr(fixed, name) for name in AUGMENTATIONS if getattr(fixed, name)} == {
        "flips": 0.4,
        "turns": 0.4,
    }
    assert fixed.model_copy(update=dict.fromkeys(AUGMENTATIONS, 0.4)) == on


@pytest.mark.parametrize(
    ("given", "named"),
    [({}, None), ({"zoom": 0.0}, None), ({"zoom": 0.9, "paste": 0.3, "flips": 0.1}, ("zoom", "paste"))],
)
def test_a_setting_that_is_not_the_default_is_not_switched_off_silently(
    given: dict[str, float], named: tuple[str, ...] | None, caplog: pytest.LogCaptureFixture
) -> None:
    cacheable_augmentations(TrainingConfig.model_validate(given))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (named is not None)
    for name in AUGMENTATIONS if named else ():
        assert (name in warnings[0]) == (name in (named or ()))


def test_rare_classes_are_pasted_more_often(images: list[LabelledImage]) -> None:
    vocabulary = Vocabulary((ClassText("common", "c"), ClassText("rare", "r")))
    data = labelled(images, ["common"] * 19 + ["rare"])
    shares = {}
    for paste_rare in (False, True):
        training = TrainingConfig(
            paste=1.0, paste_rare=paste_rare, batch=20, zoom=0, flips=0, turns=0, brightness=0
        )
        batches = [
            TrainingSet(data, vocabulary, LetterboxReader(64), training).batch(step) for step in range(3)
        ]
        labels = np.concatenate([found for batch in batches for found in batch.labels])
        shares[paste_rare] = float((labels == 1).mean())
    assert shares[True] > 2 * shares[False]
