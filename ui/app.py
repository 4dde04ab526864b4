"""Streamlit app: ``streamlit run ui/app.py -- WORKSPACE``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from dsmoe_core.errors import DsmoeError, WorkspaceError
from dsmoe_core.plain_text import escape_markdown, markdown_code
from ui.snapshot import Snapshot
from ui.state import cached_snapshot
from ui.views import PAGES, Page

# A file, because Streamlit loads a Material icon for the browser tab from the internet.
ICON = Path(__file__).with_name("icon.svg")
# Streamlit has no setting for the wide margins of its pages.
SMALLER_PADDING = "<style>[data-testid='stMainBlockContainer'] { padding: 2.5rem 3rem }</style>"


def workspace_path(arguments: Sequence[str]) -> Path:
    """Path of the workspace from the command line.

    Raises:
        WorkspaceError: there is not exactly one argument.
    """
    if len(arguments) != 1:
        raise WorkspaceError(
            f"the page got {len(arguments)} arguments; expected one, the workspace's folder",
            "Start it with `dsmoe ui WORKSPACE`.",
        )
    return Path(arguments[0]).expanduser().resolve()


def main() -> None:
    """Render the navigation, the sidebar and the selected page."""
    st.set_page_config(page_title="dsmoe", page_icon=str(ICON), layout="wide")
    try:
        snapshot = cached_snapshot(workspace_path(sys.argv[1:]))
    except DsmoeError as error:
        problem, remedy = escape_markdown(error.problem.rstrip(".")), escape_markdown(error.remedy)
        st.error(f"**{problem}.**  \n{remedy}", icon=":material/error:")
        st.stop()
    selected = st.navigation([_streamlit_page(page, snapshot) for page in PAGES])
    st.html(SMALLER_PADDING)
    with st.sidebar:
        st.markdown(f"**{escape_markdown(snapshot.title)}**")
        st.caption(markdown_code(str(snapshot.path)))
        st.caption(f"Model in use: {escape_markdown(snapshot.champion or 'none yet')}")
        st.button("Reload", icon=":material/refresh:", help="read the changes in the workspace")
    selected.run()


def _streamlit_page(page: Page, snapshot: Snapshot) -> StreamlitPage:
    return st.Page(
        lambda: page.show(snapshot),
        title=page.title,
        icon=page.icon,
        url_path=page.title.lower(),
        default=page is PAGES[0],
    )


if __name__ == "__main__":
    main()
