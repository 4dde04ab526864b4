"""Tests of stage 1 against eq. 1, and of its running mean."""

from __future__ import annotations

import math

import pytest
import torch
from references import close, random, randomised

from dsmoe_core.stages.text_prompt import CENTRE_MOMENTUM, TextPrompt


@pytest.mark.parametrize(("classes", "width"), [(1, 8), (4, 8), (5, 7)])
def test_positional_code_is_sines_then_cosines_of_the_class_index(classes: int, width: int) -> None:
    stage = randomised(TextPrompt(width=width, position=True))
    assert stage.frequency is not None
    assert stage.amplitude is not None
    text, half = random(classes, width), width // 2
    expected = torch.zeros(classes, width, dtype=torch.float64)
    for i in range(classes):
        for j in range(width):
            expected[i, j] = text[i, j] - stage.centre.mean[j]
            if j < 2 * half:
                wave = (math.sin if j < half else math.cos)(i * stage.frequency[j % half].item())
                expected[i, j] += stage.amplitude[j].item() * wave
    close(stage(text), expected, 1e-12)


def test_without_positional_code_classes_are_independent() -> None:
    stage = randomised(TextPrompt(width=6, position=False))
    text = random(5, 6)
    close(stage(text), torch.stack([row - stage.centre.mean for row in text]), 1e-12)


def test_without_centring_the_text_is_unchanged() -> None:
    stage = TextPrompt(width=6, position=False, centred=False)
    text = random(5, 6)
    stage.update(text)
    assert torch.equal(stage(text), text)
    assert not list(stage.buffers())


def test_centre_is_the_mean_of_the_first_updates_and_then_an_exponential_average() -> None:
    stage = TextPrompt(width=6, position=False).double()
    expected, updates = torch.zeros(6, dtype=torch.float64), 0
    for step in range(150):
        book = random(1 + step % 3, 6, seed=step)
        stage.update(book)
        if len(book) > 1:  # a single class does not update the mean
            updates += 1
            share = max(1 / updates, CENTRE_MOMENTUM)
            expected = (1 - share) * expected + share * book.mean(0)
        if step == 20:
            books = [random(1 + s % 3, 6, seed=s) for s in range(21)]
            close(stage.centre.mean, torch.stack([b.mean(0) for b in books if len(b) > 1]).mean(0), 1e-12)
    close(stage.centre.mean, expected, 1e-12)
