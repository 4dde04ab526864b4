"""Formats the statistics of a class as text, for prompts and for tables."""

from __future__ import annotations

from pipelines.class_text.class_facts import ClassFacts, Quartiles

MAJORITY = 0.5
"""Smallest share of the boxes that is reported as "mostly"."""
MIN_CONTRAST = 3.0
"""Grey levels of 255; a smaller contrast is reported as "hardly any"."""
_SIZES = ((0.001, "tiny"), (0.01, "small"), (0.1, "medium"), (float("inf"), "large"))


def facts_line(facts: ClassFacts) -> str:
    """All statistics of a class in one line."""
    if not facts.boxes:
        return "no box of this class is annotated yet, so nothing was measured."
    return (
        f"{facts.boxes} annotated boxes on {facts.images} of {facts.labelled_images} images, "
        f"{number(facts)}. Size: {size(facts)}. Aspect: {aspect(facts)}. Contrast: {contrast(facts)}. "
        f"Orientation of its lines: {orientation(facts)}. Place: {place(facts)}. "
        "In brackets: from the lower to the upper quartile."
    )


def number(facts: ClassFacts) -> str:
    """Number of boxes per image."""
    return f"{_format_quartiles(facts.per_image)} on an image that has one"


def size(facts: ClassFacts) -> str:
    """Width, height and share of the image's area."""
    if facts.area_share is None:
        return "-"
    word = next(word for limit, word in _SIZES if facts.area_share.median < limit)
    width, height = _format_quartiles(facts.width), _format_quartiles(facts.height)
    percent = _format_quartiles(Quartiles(*(100 * value for value in facts.area_share)))
    return f"{word}, {width} x {height} px, {percent} % of the image"


def aspect(facts: ClassFacts) -> str:
    """Width over height."""
    if facts.aspect is None:
        return "-"
    shape = "about as wide as high"
    if not 2 / 3 < facts.aspect.median < 1.5:
        shape = "wider than high" if facts.aspect.median > 1 else "higher than wide"
    return f"{shape}, width : height {_format_quartiles(facts.aspect)}"


def contrast(facts: ClassFacts) -> str:
    """Whether boxes are darker or brighter than their surroundings, and by how many grey levels."""
    if facts.contrast is None:
        return "-"
    lower, median, upper = facts.contrast
    levels = f"{median:+.0f} of 255 grey levels ({lower:+.0f} to {upper:+.0f})"
    if lower < -MIN_CONTRAST and upper > MIN_CONTRAST:
        return f"darker or brighter than around it, {levels}"
    if abs(median) < MIN_CONTRAST:
        return f"hardly any, {levels}"
    return f"{'darker' if median < 0 else 'brighter'} than around it, {levels}"


def orientation(facts: ClassFacts) -> str:
    """Direction of the lines in the boxes."""
    if not facts.orientation:
        return "-"
    direction, share = next(iter(facts.orientation.items()))
    if share >= MAJORITY:
        return f"mostly {direction}, {share:.0%} of the boxes"
    return "mixed, " + ", ".join(f"{share:.0%} {name}" for name, share in facts.orientation.items())


def place(facts: ClassFacts) -> str:
    """Position of the boxes in the image."""
    if not facts.place:
        return "-"
    ninth, share = next(iter(facts.place.items()))
    where = f"mostly {ninth}, {share:.0%} of the boxes" if share >= MAJORITY else "spread over the image"
    return f"{where}; {facts.at_edge:.0%} touch the image's edge"


def _format_quartiles(values: Quartiles | None) -> str:
    """The median with the quartiles in brackets; the median alone if the three look the same."""
    if values is None:
        return "-"
    lower, median, upper = (f"{value:.3g}" for value in values)
    return median if lower == median == upper else f"{median} ({lower} to {upper})"
