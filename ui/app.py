"""The page itself: ``streamlit run ui/app.py -- WORKSPACE``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from dsmoe_core.errors import DsmoeError, WorkspaceError
from ui.state import current
from ui.views import experts, images, rounds

ICON = Path(__file__).with_name("icon.svg")  # a Material icon as page icon would be fetched from the internet

# Streamlit leaves the upper eighth and broad margins of the page empty, and has no setting for it.
LESS_EMPTY = "<style>[data-testid='stMainBlockContainer'] { padding: 2.5rem 3rem }</style>"


def workspace_path(arguments: Sequence[str]) -> Path:
    """The one argument.

    Raises:
        WorkspaceError: there is none, or more than one.
    """
    if len(arguments) != 1:
        raise WorkspaceError(
            f"the page got {len(arguments)} arguments; expected one, the workspace's folder",
            "Start it with `dsmoe ui WORKSPACE`.",
        )
    return Path(arguments[0]).expanduser().resolve()


def main() -> None:
    """Draw the page that is chosen at the left."""
    st.set_page_config(page_title="dsmoe", page_icon=str(ICON), layout="wide")
    try:
        snapshot = current(workspace_path(sys.argv[1:]))
    except DsmoeError as error:
        st.error(f"**{error.problem.rstrip('.')}.**  \n{error.remedy}", icon=":material/error:")
        st.stop()
    chosen = st.navigation(
        [
            st.Page(
                lambda: rounds.show(snapshot),
                title="Rounds",
                icon=":material/timeline:",
                default=True,
            ),
            st.Page(
                lambda: experts.show(snapshot), title="Experts", icon=":material/groups:", url_path="experts"
            ),
            st.Page(
                lambda: images.show(snapshot),
                title="Images",
                icon=":material/photo_library:",
                url_path="images",
            ),
        ]
    )
    st.html(LESS_EMPTY)
    with st.sidebar:
        st.markdown(f"**{snapshot.title}**")
        st.caption(f"`{snapshot.path}`")
        st.caption(f"Model in use: {snapshot.champion or 'none yet'}")
        st.button("Reload", icon=":material/refresh:", help="read what changed in the workspace")
    chosen.run()


if __name__ == "__main__":
    main()
