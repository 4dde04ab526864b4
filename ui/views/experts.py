"""Experts: who looks at which class, and does anybody idle?"""

from __future__ import annotations

from typing import Literal

import streamlit as st

from ui.charts import heat_map
from ui.snapshot import Snapshot
from ui.tables import expert_use, load

NO_MODEL = "No model yet. Expert use is known once the first round is closed and its model is promoted."
NO_DETECTIONS = "The model in use has not looked at any image yet. It does when the next round is opened."
NO_CLASS = {
    "detections": "The detector has found nothing it is sure enough of to show to annotators.",
    "annotations": "Nobody has labelled a defect on an image that the detector has looked at.",
}
SOURCES: dict[str, Literal["detections", "annotations"]] = {
    "the detector finds": "detections",
    "people labelled": "annotations",
}


def show(snapshot: Snapshot) -> None:
    """The page."""
    st.header("Experts")
    if snapshot.champion is None:
        st.info(NO_MODEL, icon=":material/neurology:")
        return
    if not snapshot.detections:
        st.info(NO_DETECTIONS, icon=":material/search:")
        return
    st.write(
        "For every image a router picks a few experts and weighs them. A class whose row has one dark field"
        " has a specialist; an expert whose column stays pale does not earn its keep."
    )
    chosen = st.segmented_control(
        "Classes that", list(SOURCES), default="the detector finds", required=True, key="source"
    )
    source = SOURCES[str(chosen)]
    use = expert_use(snapshot, source)
    st.subheader("Mean weight of each expert, by class")
    if use:
        st.vega_lite_chart(heat_map(use), width="stretch", alt="mean weight of each expert by class")
    else:
        st.info(NO_CLASS[source], icon=":material/grid_off:")
    st.subheader("All images")
    st.caption(f"{len(snapshot.detections):,} images, model {snapshot.champion}")
    rows = load(snapshot)
    st.dataframe(
        rows,
        hide_index=True,
        width=560,
        column_config={
            "Looks at": st.column_config.ProgressColumn(
                format="%.0f %%", min_value=0, max_value=100, help="share of the images it was picked for"
            ),
            "Mean weight": st.column_config.NumberColumn(format="%.3f"),
        },
    )
    idle = [str(row["Expert"]) for row in rows if not row["Looks at"]]
    if idle:
        st.warning(f"Never picked: {', '.join(idle)}.", icon=":material/bedtime:")
