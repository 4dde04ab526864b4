"""Types of progress callbacks."""

from __future__ import annotations

from collections.abc import Callable

StatusCallback = Callable[[str], None]
"""Called with one line of text when a step begins."""
CountCallback = Callable[[int, int], None]
"""Called with (items done, items in total)."""
