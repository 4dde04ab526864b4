"""Who is told how a long command goes."""

from __future__ import annotations

from typing import Protocol


class Told(Protocol):
    """Such as the terminal."""

    def say(self, text: str) -> None:
        """Something begins."""
        ...

    def advance(self, done: int, total: int) -> None:
        """So much of it is done."""
        ...

    def line(self, text: str) -> None:
        """A line that stays."""
        ...
