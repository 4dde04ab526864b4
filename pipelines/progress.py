"""How long commands report their progress."""

from __future__ import annotations

from typing import Protocol


class ProgressReporter(Protocol):
    """Receives the progress of a long command; the terminal implements it."""

    def status(self, text: str) -> None:
        """Show what is being done now."""
        ...

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Show how many of all items are done, with an optional note such as the loss."""
        ...

    def line(self, text: str) -> None:
        """Print a line that stays."""
        ...

    def step(self, number: int, name: str) -> None:
        """Show that a step of round ``number`` begins."""
        ...

    def finished(self, number: int, name: str) -> None:
        """Show that a step of round ``number`` is done and journalled."""
        ...


class SilentProgress:
    """Shows nothing: for worker processes and tests."""

    def status(self, text: str) -> None:
        """Show nothing."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Show nothing."""

    def line(self, text: str) -> None:
        """Show nothing."""

    def step(self, number: int, name: str) -> None:
        """Show nothing."""

    def finished(self, number: int, name: str) -> None:
        """Show nothing."""
