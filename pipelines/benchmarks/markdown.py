"""Markdown tables and the format of numbers in them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dsmoe_core.evaluation.seed_stats import mean_over_seeds


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with the first column aligned left and the others aligned right.

    Args:
        head: headings, in Markdown.
        rows: cells, in Markdown; ``escape_markdown`` makes it of names from outside.
    """
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """The text without the line breaks and bars that would end a cell."""
    return re.sub(r"(?<!\\)\|", r"\|", " ".join(text.splitlines()))


def percent(value: float | None) -> str:
    """A share in whole percent; a dash for None."""
    return "-" if value is None else f"{value:.0%}"


def score(value: float | None) -> str:
    """A score with three decimals; a dash for None."""
    return "-" if value is None else f"{value:.3f}"


def score_over_seeds(values: Sequence[float]) -> str:
    """The mean of a score over seeds with its 95 % interval; the score itself for one seed."""
    if len(values) < 2:
        return score(values[0])
    mean, (low, high) = mean_over_seeds(values)
    return f"{score(mean)} [{max(low, 0.0):.3f}, {min(high, 1.0):.3f}]"


def milliseconds(value: float) -> str:
    """Whole milliseconds; two decimals below 10 ms."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"
