"""Types of the callbacks that report progress."""

from __future__ import annotations

from collections.abc import Callable

StatusCallback = Callable[[str], None]
"""Called with one line of text when a part of the work begins."""
CountCallback = Callable[[int, int], None]
"""Called with (items done, items in total)."""
