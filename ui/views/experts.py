"""Experts page: which expert is used for which class, and which experts are never used."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from dsmoe_core.plain_text import escape_markdown
from ui.charts import heat_map
from ui.snapshot import Snapshot
from ui.tables import expert_usage_table, expert_use

NO_MODEL = "No model yet. Expert use is shown after the first round is closed and its model is promoted."
NO_PREDICTIONS = "The model in use has no predictions yet. They are made when the next round is opened."
NO_CLASS = {
    "pre-annotations": "The detector has no detection with a score that is high enough for a pre-annotation.",
    "annotations": "No image with predictions has an annotated defect.",
}
SOURCES: dict[str, Literal["pre-annotations", "annotations"]] = {
    "the detector finds": "pre-annotations",
    "people labelled": "annotations",
}


def show(snapshot: Snapshot) -> None:
    """Render the page."""
    st.header("Experts")
    if snapshot.champion is None:
        st.info(NO_MODEL, icon=":material/neurology:")
        return
    if not snapshot.predictions:
        st.info(NO_PREDICTIONS, icon=":material/search:")
        return
    st.write(
        "At every position of an image a router selects a few experts and weighs them. A row with one dark"
        " cell is a class with a specialised expert; a pale column is an expert that is hardly used."
    )
    selected = st.segmented_control(
        "Classes that", list(SOURCES), default="the detector finds", required=True, key="source"
    )
    source = SOURCES[str(selected)]
    use = expert_use(snapshot, source)
    st.subheader("Leading expert, by class")
    if use:
        st.vega_lite_chart(
            heat_map(use), width="stretch", alt="share of the boxes of each class by leading expert"
        )
    else:
        st.info(NO_CLASS[source], icon=":material/grid_off:")
    st.subheader("All images")
    st.caption(f"{len(snapshot.predictions):,} images, model {escape_markdown(snapshot.champion)}")
    rows = expert_usage_table(snapshot)
    st.dataframe(
        rows,
        hide_index=True,
        width=560,
        column_config={
            "Selected for": st.column_config.ProgressColumn(
                format="%.0f %%",
                min_value=0,
                max_value=100,
                help="share of the images in which the router selected it anywhere",
            ),
            "Mean weight": st.column_config.NumberColumn(format="%.3f"),
        },
    )
    unused = [str(row["Expert"]) for row in rows if not row["Selected for"]]
    if unused:
        st.warning(f"Never selected: {', '.join(unused)}.", icon=":material/bedtime:")
