"""Tests of parsing the image-level part of an annotation."""

from __future__ import annotations

from typing import Any

import pytest

from annotate.studio.controls import IMAGE_CHOICE, NOTE, OBJECT, ImageChoice, ImageFeedback, image_feedback
from annotate.studio.convert import to_result
from annotate.studio.protocol import Region
from annotate.studio.regions import read_regions
from dsmoe_core.schema import Box


def choices(*selected: str) -> dict[str, Any]:
    return {
        "id": "c1",
        "type": "choices",
        "from_name": IMAGE_CHOICE,
        "to_name": OBJECT,
        "value": {"choices": [*selected]},
    }


def note(*lines: str) -> dict[str, Any]:
    return {"id": "n1", "type": "textarea", "from_name": NOTE, "to_name": OBJECT, "value": {"text": [*lines]}}


def test_choices_and_note_are_parsed_in_a_fixed_order() -> None:
    results = [note(" a scratch? ", "", "or dust"), choices("needs an expert", "no defect", "unknown")]
    assert image_feedback(results) == ImageFeedback(
        (ImageChoice.NO_DEFECT, ImageChoice.NEEDS_EXPERT), "a scratch?\nor dust"
    )
    assert image_feedback([]) == ImageFeedback()


def test_image_level_results_are_not_regions(caplog: pytest.LogCaptureFixture) -> None:
    region = Region("r", Box(1.0, 1.0, 9.0, 9.0), "open", "manual", None)
    results = [choices("unsure"), to_result(region, 100, 100), note("why?")]
    assert [region.id for region in read_regions(results, 100, 100).regions] == ["r"]
    assert image_feedback(results) == ImageFeedback((ImageChoice.UNSURE,), "why?")
    assert not caplog.text
