"""Images page: a gallery with the detector's and the annotators' boxes, the most uncertain images first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from dsmoe_core.plain_text import escape_markdown
from dsmoe_core.schema import Annotation, Detection, ImageRecord
from ui.draw import render_boxes
from ui.gallery import STATUS_TEXT, GalleryFilter, page_count, reasons, select_images
from ui.snapshot import Snapshot

IMAGES_PER_PAGE = 12
COLUMNS = 3
FILTERS: tuple[GalleryFilter, ...] = ("to label", "labelled", "test set", "all")
NO_IMAGE = "There is no image in this workspace."
NO_PREDICTIONS = "There are no predictions yet, so the images are sorted by name."
NO_MATCH = "No image matches this selection."


def show(snapshot: Snapshot) -> None:
    """Render the page."""
    st.header("Images")
    if not snapshot.images and not snapshot.test_set:
        st.info(NO_IMAGE, icon=":material/image_not_supported:")
        return
    if not snapshot.predictions:
        st.info(NO_PREDICTIONS, icon=":material/search:")
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    chosen = left.segmented_control(
        "Show", FILTERS, default="to label", required=True, format_func=str.capitalize, key="filter"
    )
    classes = right.multiselect("Classes", snapshot.classes, placeholder="all classes", key="classes")
    images = select_images(snapshot, next(f for f in FILTERS if f == chosen), classes)
    if not images:
        st.info(NO_MATCH, icon=":material/filter_alt_off:")
        return
    count = page_count(len(images), IMAGES_PER_PAGE)
    legend, pagination = st.columns([3, 2], vertical_alignment="center")
    legend.caption(
        f"{len(images):,} images, the most uncertain first. Dashed lines: the detector. "
        "Solid lines: annotators."
    )
    with pagination:
        # The key depends on the selection, so that another selection starts at its first page.
        page = st.pagination(count, key=f"page of {chosen} {sorted(classes)} {count}") if count > 1 else 1
    on_page = images[(page - 1) * IMAGES_PER_PAGE : page * IMAGES_PER_PAGE]
    for start in range(0, len(on_page), COLUMNS):
        for column, image in zip(st.columns(COLUMNS), on_page[start : start + COLUMNS], strict=False):
            with column:
                _show_card(snapshot, image)


def _show_card(snapshot: Snapshot, image: ImageRecord) -> None:
    prediction = snapshot.predictions.get(image.key)
    pre_annotations = snapshot.pre_annotations(image.key)
    with st.container(border=True, height="stretch"):
        try:
            truth = snapshot.truth(image.key) or ()
            jpeg = _cached_jpeg(image.path, truth, pre_annotations, snapshot.colours())
        except OSError as error:
            st.warning(
                escape_markdown(f"{image.name} cannot be read ({error})."), icon=":material/broken_image:"
            )
        else:
            st.image(jpeg, width="stretch", alt=image.name)
        status = STATUS_TEXT[snapshot.status(image.key)]
        uncertainty = f" · uncertainty {prediction.uncertainty:.2f}" if prediction else ""
        st.markdown(f"**{escape_markdown(image.name)}**  \n{status}{uncertainty}")
        st.caption("  \n".join(map(escape_markdown, reasons(prediction, pre_annotations))))


@st.cache_data(max_entries=400, show_spinner=False)
def _cached_jpeg(
    path: Path, truth: Sequence[Annotation], detections: Sequence[Detection], colours: dict[str, str]
) -> bytes:
    return render_boxes(path, truth, detections, colours)
