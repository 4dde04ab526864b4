"""Images: where the detector doubts most, with its boxes and the people's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from dsmoe_core.schema import Annotation, Detection, ImageRecord
from ui.draw import drawn
from ui.gallery import STANDING, Wanted, pages, reasons, select
from ui.snapshot import Snapshot

PAGE = 12
ACROSS = 3
KINDS: tuple[Wanted, ...] = ("to label", "labelled", "test set", "all")
NO_IMAGE = "No image is in this workspace."
NO_DETECTIONS = "The detector has not looked at any image yet, so they stand in order of their names."
NO_MATCH = "No image fits this choice."


def show(snapshot: Snapshot) -> None:
    """The page."""
    st.header("Images")
    if not snapshot.images and not snapshot.test:
        st.info(NO_IMAGE, icon=":material/image_not_supported:")
        return
    if not snapshot.detections:
        st.info(NO_DETECTIONS, icon=":material/search:")
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
        f"{len(chosen):,} images, the most uncertain first. Broken lines: the detector. Whole lines: people."
    )
    with turner:
        # A key per choice: another choice starts at its first page.
        page = st.pagination(count, key=f"page of {wanted} {sorted(classes)} {count}") if count > 1 else 1
    shown = chosen[(page - 1) * PAGE : page * PAGE]
    for start in range(0, len(shown), ACROSS):
        for column, image in zip(st.columns(ACROSS), shown[start : start + ACROSS], strict=False):
            with column:
                _card(snapshot, image)


def _card(snapshot: Snapshot, image: ImageRecord) -> None:
    found, shown = snapshot.detections.get(image.key), snapshot.shown(image.key)
    with st.container(border=True, height="stretch"):
        try:
            rendered = _image(image.path, snapshot.truth(image.key) or (), shown, snapshot.colours())
        except OSError as error:
            st.warning(f"{image.name} cannot be read ({error}).", icon=":material/broken_image:")
        else:
            st.image(rendered, width="stretch", alt=image.name)
        kind = snapshot.kind(image.key)
        doubt = f" · uncertainty {found.uncertainty:.2f}" if found else ""
        st.markdown(f"**{_plain(image.name)}**  \n{STANDING[kind]}{doubt}")
        st.caption("  \n".join(_plain(reason) for reason in reasons(found, snapshot.least_score)))


def _kind(chosen: object) -> Wanted:
    return next(kind for kind in KINDS if kind == chosen)


def _plain(text: str) -> str:
    """Names come from outside; none of their characters may act as markup."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()#+-!|~:$<>&" else c for c in text)


@st.cache_data(max_entries=400, show_spinner=False)
def _image(
    path: Path, truth: Sequence[Annotation], detections: Sequence[Detection], colours: dict[str, str]
) -> bytes:
    return drawn(path, truth, detections, colours)
