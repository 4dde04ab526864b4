"""Measured facts in short words with their numbers: for the question to a language model, and for people."""

from __future__ import annotations

from pipelines.class_text.class_facts import ClassFacts, Quartiles

MOST = 0.5
"""From this share of the boxes on, they are said to be so."""
LOW_SCORE = 3.0
"""Grey levels of 255 below which a contrast is hardly one."""
_SIZES = ((0.001, "tiny"), (0.01, "small"), (0.1, "medium"), (float("inf"), "large"))


def in_words(facts: ClassFacts) -> str:
    """All facts of a class on one line; that there is none where it has no box."""
    if not facts.boxes:
        return "no box of this class is annotated yet, so nothing was measured."
    return (
        f"{facts.boxes} annotated boxes on {facts.images} of {facts.labelled} images, {number(facts)}. "
        f"Size: {size(facts)}. Aspect: {aspect(facts)}. Contrast: {contrast(facts)}. "
        f"Orientation of its lines: {orientation(facts)}. Place: {place(facts)}. "
        "In brackets: from the lower to the upper quartile."
    )


def number(facts: ClassFacts) -> str:
    """How many there are on an image."""
    return f"{_spread(facts.each)} on an image that has one"


def size(facts: ClassFacts) -> str:
    """Width, height and share of the image."""
    if facts.share is None:
        return "-"
    word = next(word for below, word in _SIZES if facts.share.middle < below)
    share = _spread(Quartiles(*(100 * value for value in facts.share)))
    return f"{word}, {_spread(facts.width)} x {_spread(facts.height)} px, {share} % of the image"


def aspect(facts: ClassFacts) -> str:
    """Width over height."""
    if facts.aspect is None:
        return "-"
    shape = "about as wide as high"
    if not 2 / 3 < facts.aspect.middle < 1.5:
        shape = "wider than high" if facts.aspect.middle > 1 else "higher than wide"
    return f"{shape}, width : height {_spread(facts.aspect)}"


def contrast(facts: ClassFacts) -> str:
    """Darker or brighter than around it, and by how much."""
    if facts.contrast is None:
        return "-"
    low, middle, high = facts.contrast
    much = f"{middle:+.0f} of 255 grey levels ({low:+.0f} to {high:+.0f})"
    if low < -LOW_SCORE and high > LOW_SCORE:
        return f"darker or brighter than around it, {much}"
    if abs(middle) < LOW_SCORE:
        return f"hardly any, {much}"
    return f"{'darker' if middle < 0 else 'brighter'} than around it, {much}"


def orientation(facts: ClassFacts) -> str:
    """Which way lines run."""
    if not facts.orientation:
        return "-"
    first, share = next(iter(facts.orientation.items()))
    if share >= MOST:
        return f"mostly {first}, {share:.0%} of the boxes"
    return "mixed, " + ", ".join(f"{share:.0%} {name}" for name, share in facts.orientation.items())


def place(facts: ClassFacts) -> str:
    """Where in the image."""
    if not facts.place:
        return "-"
    first, share = next(iter(facts.place.items()))
    where = f"mostly {first}, {share:.0%} of the boxes" if share >= MOST else "spread over the image"
    return f"{where}; {facts.at_edge:.0%} touch the image's edge"


def _spread(values: Quartiles | None) -> str:
    """The median with the quartiles, which are left out where they are the same."""
    if values is None:
        return "-"
    low, middle, high = (f"{value:.3g}" for value in values)
    return middle if low == middle == high else f"{middle} ({low} to {high})"
