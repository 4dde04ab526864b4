"""The controls of the labelling page by name, and what a person says about an image as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

OBJECT: Final = "image"  # to_name of every result, and the field of a task's data with the image's address
CONTROL: Final = "label"  # from_name of every box, drawn by hand, pre-annotated or answered to a smart click
CLICK: Final = "click"  # from_name of the smart key-point: sent to the back end, answered with a box
FRAME: Final = "frame"  # from_name of the smart box: sent to the back end, answered with a tighter box
IMAGE_CHOICE: Final = "verdict"  # from_name of the choices for the image as a whole
NOTE: Final = "note"  # from_name of the text that reaches the domain expert


class ImageChoice(StrEnum):
    """What a person may say about an image as a whole; the value is the word on the page."""

    NO_DEFECT = "no defect"
    UNSURE = "unsure"
    NEEDS_EXPERT = "needs an expert"


@dataclass(frozen=True, slots=True)
class ImageFeedback:
    """What one annotation says about its image, besides the boxes.

    Attributes:
        verdicts: the choices made, in the order of Verdict.
        note: what was written for the domain expert; empty where nothing was.
    """

    choices: tuple[ImageChoice, ...] = ()
    note: str = ""


def image_feedback(results: Iterable[Mapping[str, Any]]) -> ImageFeedback:
    """What an annotation's results say about the image as a whole; words we do not know are left out."""
    chosen: set[str] = set()
    written: list[str] = []
    for result in results:
        value = result.get("value") or {}
        if result.get("from_name") == IMAGE_CHOICE:
            chosen.update(map(str, value.get("choices") or []))
        elif result.get("from_name") == NOTE:
            text = value.get("text") or []
            written += [text] if isinstance(text, str) else map(str, text)
    return ImageFeedback(
        tuple(v for v in ImageChoice if v in chosen),
        "\n".join(stripped for t in written if (stripped := t.strip())),
    )


def is_image_feedback(result: Mapping[str, Any]) -> bool:
    """Whether this result is about the image as a whole, and so no box."""
    return result.get("from_name") in (IMAGE_CHOICE, NOTE)


def is_smart_prompt(result: Mapping[str, Any]) -> bool:
    """Whether this result is what a smart tool was pointed at, and so a question, not an answer."""
    return result.get("from_name") in (CLICK, FRAME)
