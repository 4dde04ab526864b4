"""What the figures come to, in a word and in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prompts.evaluation_report import Verdict

TOLERANCE = 0.01
"""So much mAP@.5:.95 may a book cost without being worse."""


def verdict(low: float, high: float, tolerance: float, *, blind: bool = False) -> Verdict:
    """What the paired 95 % interval of a book's gain in mean mAP@.5:.95 says; each interval gets one answer.

    In this order:

    - ``better``: all of it lies above zero.
    - ``no worse``: its lower end does not lie below minus the tolerance. A loss that is sure and smaller than
      the tolerance is therefore no worse: that is what tolerating it means.
    - ``worse``: all of it lies below zero.
    - ``undecided``: it holds a loss beyond the tolerance as well as a gain; more images would decide.

    A model that finds nothing right in either book has no say: that is undecided, whatever the tolerance.

    Args:
        low, high: ends of the interval.
        tolerance: 0 or more.
        blind: nothing that was found is right, in either book.
    """
    if blind:
        return "undecided"
    if low > 0:
        return "better"
    if low >= -tolerance:
        return "no worse"
    return "worse" if high < 0 else "undecided"


def reason(said: Verdict, gain: Mapping[str, Any], tolerance: float, images: int) -> str:
    """The verdict with its figures.

    Args:
        gain: ``this``, ``other``, ``delta`` and ``ci95`` of the mean mAP@.5:.95.
    """
    if nothing_correct(gain):
        return f"undecided: the model finds nothing right on {images:,} images, in neither book"
    beyond = f"beyond the tolerated {tolerance:g}"
    says = {
        "better": "the whole interval is a gain",
        "no worse": f"no loss {beyond} is in the interval",
        "worse": f"the whole interval is a loss, and reaches {beyond}",
        "undecided": f"the interval holds a loss {beyond} as well as none, and more images would decide",
    }
    return f"{said}: mAP@.5:.95 {shown(gain)} on {images:,} images; {says[said]}"


def nothing_correct(gain: Mapping[str, Any]) -> bool:
    """Whether nothing that was found is right, in either book."""
    return not any(gain[side] > 0 for side in ("this", "other"))


def text_effect(gain: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the model does better in the right words than in random ones, plainly.

    ``answer`` is ``yes`` where the whole interval lies above zero, ``backwards`` where it lies below, else
    ``not shown``. Where it is not yes no difference between two books means much: other words would have
    done as well.

    Args:
        gain: ``delta``, ``ci95`` and ``p`` of the mean mAP@.5:.95, right words less random words; of several
            draws of those the mean, and ``spread``, the least and the largest.
    """
    low, high = gain["ci95"]
    spread = "; {:+.3f} to {:+.3f} by draw".format(*gain["spread"]) if "spread" in gain else ""
    measured = f"right less random words of the same length: mAP@.5:.95 {shown(gain)}{spread}"
    if low > 0:
        answer, sentence = "yes", f"The model reads these words ({measured})"
    elif high < 0:
        answer, sentence = (
            "backwards",
            f"The model does better in random words than in these ({measured})",
        )
    else:
        answer, sentence = "not shown", f"The model does not read these words, as far as shown ({measured})"
    return {"answer": answer, **gain, "sentence": sentence}


def shown(gain: Mapping[str, Any]) -> str:
    """A difference with its interval."""
    low, high = gain["ci95"]
    return f"{gain['delta']:+.3f} [{low:+.3f}, {high:+.3f}]"
