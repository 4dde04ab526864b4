"""Imports page: what was in the labels of each import, and what was clipped or left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dsmoe_core.data.import_account import ImportAccount, Unlabelled
from ui.snapshot import Snapshot
from ui.tables import import_counts, import_entries, import_reasons

NO_IMPORT = "No labels were imported into this workspace."
ALL_TAKEN = "Everything was taken."
MAX_ENTRIES = 1000
"""Entries that the page lists; the file in the workspace has all."""


def show(snapshot: Snapshot) -> None:
    """Render the page."""
    st.header("Imports")
    if not any(record.accounts for record in snapshot.imports):
        st.info(NO_IMPORT, icon=":material/label_off:")
    for record in snapshot.imports:
        if record.images:
            st.subheader(f"{record.command}: images", divider="gray")
            st.caption(f"{record.imported_at:%Y-%m-%d %H:%M} UTC")
            _show_images(record.images)
        for name, account in record.accounts.items():
            st.subheader(f"{record.command}: {name}", divider="gray")
            st.caption(f"{record.imported_at:%Y-%m-%d %H:%M} UTC")
            _show_account(account, is_test=name == "test")


def _show_images(images: Mapping[str, Any]) -> None:
    st.text(f"{images['images']} of {images['files']} files are used as images.")
    if images["intensity_scale"]:
        st.text(images["intensity_scale"]["text"])
    lists = {
        "files cannot be used": [f"{name}: {reason}" for name, reason in images["unreadable"].items()],
        "files have the same content as another one": [
            f"{name}: same as {first}" for name, first in images["duplicates"].items()
        ],
        "files have several frames, of which the first is used": [
            f"{name}: {frames}" for name, frames in images["several_frames"].items()
        ],
        "images have brighter pixels, which are clipped": images["clipped"],
    }
    for what, rows in lists.items():
        if rows:
            with st.expander(f"{len(rows)} {what}", expanded=len(rows) <= 10):
                st.text("\n".join(rows[:MAX_ENTRIES]))


def _show_account(account: ImportAccount, is_test: bool) -> None:
    st.dataframe(import_counts(account), hide_index=True)
    if account.images_without_box:
        count = account.images_without_box
        if account.unlabelled is Unlabelled.IGNORE:
            st.warning(f"{count} images without a box count as not labelled.", icon=":material/help:")
        else:
            st.caption(f"{count} images without a box count as free of defects.")
    for conversion, boxes in account.conversions.items():
        st.caption(f"{boxes} boxes: {conversion}")
    for note in account.notes:
        st.text(note)
    if account.images_without_labels and not is_test:  # the other images of a test set are the pool
        with st.expander(f"{len(account.images_without_labels)} images have no labels"):
            st.text("\n".join(account.images_without_labels[:MAX_ENTRIES]))
    if not account.entries:
        st.caption(ALL_TAKEN)
        return
    st.dataframe(import_reasons(account), hide_index=True)
    with st.expander(f"{len(account.entries)} entries by name", expanded=len(account.entries) <= 10):
        st.dataframe(import_entries(account, MAX_ENTRIES), hide_index=True)
