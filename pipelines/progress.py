"""Progress reports of long commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class ProgressReporter(Protocol):
    """Receives the progress of a long command; the terminal implements it."""

    def status(self, text: str) -> None:
        """Show the current activity."""
        ...

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Show how many of all items are done, with an optional note such as the loss."""
        ...

    def line(self, text: str) -> None:
        """Print a line that stays on the screen."""
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


def format_losses(metrics: Mapping[str, float]) -> str:
    """The time left and the loss terms of a training step on one line.

    The learning rate and the gradient norm are left out.
    """
    left = metrics.get("seconds_left")
    losses = {n: v for n, v in metrics.items() if n not in ("learning_rate", "gradient_norm", "seconds_left")}
    parts = [] if left is None else [format_time_left(left)]
    return " ".join([*parts, *(f"{name} {value:.3f}" for name, value in losses.items())])


def format_time_left(seconds: float) -> str:
    """A forecast such as "about 4 min left,"."""
    if seconds < 60:
        return "less than a minute left,"
    minutes = round(seconds / 60)
    return f"about {minutes} min left," if minutes < 100 else f"about {minutes / 60:.0f} h left,"
