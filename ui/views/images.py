"""Pictures: where the detector doubts most, with its boxes and the people's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from dsmoe_core.schema import Annotation, Finding, Picture
from ui.draw import drawn
from ui.gallery import STANDING, Wanted, pages, reasons, select
from ui.snapshot import Snapshot

PAGE = 12
ACROSS = 3
KINDS: tuple[Wanted, ...] = ("to label", "labelled", "test set", "all")
NO_PICTURE = "No picture is in this workspace."
NO_FINDINGS = "The detector has not looked at any picture yet, so they stand in order of their names."
NO_MATCH = "No picture fits this choice."


def show(snapshot: Snapshot) -> None:
    """The page."""
    st.header("Pictures")
    if not snapshot.pictures and not snapshot.test:
        st.info(NO_PICTURE, icon=":material/image_not_supported:")
        return
    if not snapshot.findings:
        st.info(NO_FINDINGS, icon=":material/search:")
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    wanted = left.segmented_control(
        "Show", KINDS, default="to label", required=True, format_func=str.capitalize, key="wanted"
    )
    classes = right.multiselect("Classes", snapshot.classes, placeholder="all classes", key="classes")
    chosen = select(snapshot, _kind(wanted), classes)
    if not chosen:
        st.info(NO_MATCH, icon=":material/filter_alt_off:")
        return
    count = pages(len(chosen), PAGE)
    legend, turner = st.columns([3, 2], vertical_alignment="center")
    legend.caption(
        f"{len(chosen):,} pictures, the most uncertain first."
        " Broken lines: the detector. Whole lines: people."
    )
    with turner:
        # A key per choice: another choice starts at its first page.
        page = st.pagination(count, key=f"page of {wanted} {sorted(classes)} {count}") if count > 1 else 1
    shown = chosen[(page - 1) * PAGE : page * PAGE]
    for start in range(0, len(shown), ACROSS):
        for column, picture in zip(st.columns(ACROSS), shown[start : start + ACROSS], strict=False):
            with column:
                _card(snapshot, picture)


def _card(snapshot: Snapshot, picture: Picture) -> None:
    found, shown = snapshot.findings.get(picture.key), snapshot.shown(picture.key)
    with st.container(border=True, height="stretch"):
        try:
            image = _image(picture.path, snapshot.truth(picture.key) or (), shown, snapshot.colours())
        except OSError as error:
            st.warning(f"{picture.name} cannot be read ({error}).", icon=":material/broken_image:")
        else:
            st.image(image, width="stretch", alt=picture.name)
        kind = snapshot.kind(picture.key)
        doubt = f" · uncertainty {found.uncertainty:.2f}" if found else ""
        st.markdown(f"**{_plain(picture.name)}**  \n{STANDING[kind]}{doubt}")
        st.caption("  \n".join(_plain(reason) for reason in reasons(found, snapshot.least_score)))


def _kind(chosen: object) -> Wanted:
    return next(kind for kind in KINDS if kind == chosen)


def _plain(text: str) -> str:
    """Names come from outside; none of their characters may act as markup."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()#+-!|~:$<>&" else c for c in text)


@st.cache_data(max_entries=400, show_spinner=False)
def _image(
    path: Path, truth: Sequence[Annotation], findings: Sequence[Finding], colours: dict[str, str]
) -> bytes:
    return drawn(path, truth, findings, colours)
