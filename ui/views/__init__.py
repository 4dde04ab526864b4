"""The pages of the UI. Each shows a snapshot of a workspace, or a message that says what is missing.

To add a page, write a module in this folder with a function ``show(snapshot)`` and add an entry to PAGES.
The folder is not named ``pages``, because Streamlit would run the files of such a folder as pages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ui.snapshot import Snapshot
from ui.views import experts, images, imports, rounds


class Page(NamedTuple):
    """A page of the UI.

    Attributes:
        title: in the navigation; in lower case it is the URL path.
        icon: a Material icon, written ``:material/NAME:``.
        show: renders the page with Streamlit calls.
    """

    title: str
    icon: str
    show: Callable[[Snapshot], None]


PAGES = (
    Page("Rounds", ":material/timeline:", rounds.show),
    Page("Experts", ":material/groups:", experts.show),
    Page("Images", ":material/photo_library:", images.show),
    Page("Imports", ":material/input:", imports.show),
)
"""All pages, in the order of the navigation; the first one opens first."""
