"""What a person says about an image as a whole, as the page writes it."""

from __future__ import annotations

from typing import Any

import pytest

from annotate.studio.controls import IMAGE_CHOICE, NOTE, OBJECT, ImageChoice, ImageFeedback, image_feedback
from annotate.studio.convert import parse_regions, to_result
from annotate.studio.protocol import Region
from dsmoe_core.schema import Box


def choices(*words: str) -> dict[str, Any]:
    return {
        "id": "c1",
        "type": "choices",
        "from_name": IMAGE_CHOICE,
        "to_name": OBJECT,
        "value": {"choices": [*words]},
    }


def note(*lines: str) -> dict[str, Any]:
    return {"id": "n1", "type": "textarea", "from_name": NOTE, "to_name": OBJECT, "value": {"text": [*lines]}}


def test_choices_and_note_are_read_in_a_fixed_order() -> None:
    said = image_feedback(
        [note(" a scratch? ", "", "or dust"), choices("needs an expert", "no defect", "of old")]
    )
    assert said == ImageFeedback((ImageChoice.NO_DEFECT, ImageChoice.NEEDS_EXPERT), "a scratch?\nor dust")
    assert image_feedback([]) == ImageFeedback()


def test_what_is_said_about_the_image_is_no_region(caplog: pytest.LogCaptureFixture) -> None:
    drawn = Region("r", Box(1.0, 1.0, 9.0, 9.0), "open", "manual", None)
    results = [choices("unsure"), to_result(drawn, 100, 100), note("why?")]
    assert [region.id for region in parse_regions(results, 100, 100, "task 7")] == ["r"]
    assert image_feedback(results) == ImageFeedback((ImageChoice.UNSURE,), "why?")
    assert not caplog.text
