"""Names of the controls in the labelling config, and the annotator's image-level feedback."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

OBJECT: Final = "image"
"""``to_name`` of every result, and the field of a task's data that holds the image's URL."""
CONTROL: Final = "label"
"""``from_name`` of every box: drawn by hand, pre-annotated or returned for a smart click."""
CLICK: Final = "click"
"""``from_name`` of the smart key-point: sent to the ML backend, which returns a box."""
FRAME: Final = "frame"
"""``from_name`` of the smart box: sent to the ML backend, which returns a tighter box."""
IMAGE_CHOICE: Final = "image_choice"
"""``from_name`` of the choices for the whole image."""
NOTE: Final = "note"
"""``from_name`` of the note for the domain expert."""


class ImageChoice(StrEnum):
    """Choices for the whole image. The value is the text in the labelling interface."""

    NO_DEFECT = "no defect"
    UNSURE = "unsure"
    NEEDS_EXPERT = "needs an expert"


@dataclass(frozen=True, slots=True)
class ImageFeedback:
    """Image-level part of an annotation: everything except the boxes.

    Attributes:
        choices: the selected choices, in the order of ImageChoice.
        note: the note for the domain expert; "" if there is none.
    """

    choices: tuple[ImageChoice, ...] = ()
    note: str = ""


def image_feedback(results: Iterable[Mapping[str, Any]]) -> ImageFeedback:
    """Parse the image-level results of an annotation. Unknown choices are ignored."""
    selected: set[str] = set()
    notes: list[str] = []
    for result in results:
        if not is_image_feedback(result):
            continue
        value = result.get("value") or {}
        if result.get("from_name") == IMAGE_CHOICE:
            selected.update(map(str, value.get("choices") or []))
        elif result.get("from_name") == NOTE:
            text = value.get("text") or []
            notes += [text] if isinstance(text, str) else map(str, text)
    return ImageFeedback(
        tuple(choice for choice in ImageChoice if choice in selected),
        "\n".join(stripped for note in notes if (stripped := note.strip())),
    )


def is_image_feedback(result: object) -> bool:
    """Whether a result belongs to the whole image instead of a region."""
    return isinstance(result, Mapping) and result.get("from_name") in (IMAGE_CHOICE, NOTE)


def is_smart_prompt(result: object) -> bool:
    """Whether a result is the prompt of a smart tool (a click or a frame) instead of an annotated box."""
    return isinstance(result, Mapping) and result.get("from_name") in (CLICK, FRAME)
