"""The verdict on a class book, and whether the model uses the text at all, with one sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prompts.evaluation_report import Verdict


def verdict(low: float, high: float, tolerance: float, *, nothing_correct: bool = False) -> Verdict:
    """The verdict from the paired 95 % interval of a book's gain in mean mAP@.5:.95.

    The first rule that applies decides:

    - ``better``: the whole interval is above zero.
    - ``no worse``: the lower end is not below minus the tolerance. This includes a certain loss that
      is smaller than the tolerance.
    - ``worse``: the whole interval is below zero.
    - ``undecided``: the interval contains a gain and a loss beyond the tolerance; more images would decide.

    Args:
        low, high: ends of the interval.
        tolerance: accepted loss, 0 or more.
        nothing_correct: the model has no correct detection with either book; the verdict is then
            ``undecided``.
    """
    if nothing_correct:
        return "undecided"
    if low > 0:
        return "better"
    if low >= -tolerance:
        return "no worse"
    return "worse" if high < 0 else "undecided"


def reason(decision: Verdict, gain: Mapping[str, Any], tolerance: float, images: int) -> str:
    """The verdict as a sentence with its numbers.

    Args:
        gain: ``this``, ``other``, ``delta`` and ``ci95`` of the mean mAP@.5:.95.
        images: number of evaluated images.
    """
    if has_nothing_correct(gain):
        return f"undecided: the model has no correct detection on {images:,} images with either book"
    beyond = f"beyond the tolerance of {tolerance:g}"
    explanations = {
        "better": "the whole interval is a gain",
        "no worse": f"the interval contains no loss {beyond}",
        "worse": f"the whole interval is a loss, and it reaches {beyond}",
        "undecided": f"the interval contains a loss {beyond} as well as no loss; more images would decide",
    }
    return f"{decision}: mAP@.5:.95 {format_difference(gain)} on {images:,} images; {explanations[decision]}"


def has_nothing_correct(gain: Mapping[str, Any]) -> bool:
    """Whether mAP is zero with both books."""
    return not any(gain[side] > 0 for side in ("this", "other"))


def text_effect(gain: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the model detects better with the descriptions than with random words.

    If ``answer`` is not "yes", a difference between two books means little: other texts would give the same
    result.

    Args:
        gain: ``delta``, ``ci95`` and ``p`` of the mean mAP@.5:.95, descriptions minus random words (averaged
            over several draws), and ``spread`` over the draws.

    Returns:
        ``gain`` with ``answer`` ("yes": the whole interval is above zero; "backwards": it is below; "not
        shown": otherwise) and ``sentence``.
    """
    low, high = gain["ci95"]
    spread = ""
    if "spread" in gain:
        spread = "; {:+.3f} to {:+.3f}, depending on the random words".format(*gain["spread"])
    numbers = f"mAP@.5:.95 of the descriptions minus random words, 95 %: {format_difference(gain)}{spread}"
    if low > 0:
        answer, claim = "yes", "The model uses the descriptions"
    elif high < 0:
        answer, claim = "backwards", "The model detects better with random words than with the descriptions"
    else:
        answer, claim = "not shown", "There is no evidence that the model uses the descriptions"
    return {"answer": answer, **gain, "sentence": f"{claim} ({numbers})"}


def format_difference(gain: Mapping[str, Any]) -> str:
    """A difference with its interval."""
    low, high = gain["ci95"]
    return f"{gain['delta']:+.3f} [{low:+.3f}, {high:+.3f}]"
