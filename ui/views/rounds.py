"""Rounds page: the learning curve, and how annotators corrected the pre-annotations."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig

from dsmoe_core.data.import_account import MAX_NAMED
from dsmoe_core.plain_text import escape_markdown
from dsmoe_core.schema import Outcome
from pipelines.rounds.audit import audit_sentences
from pipelines.rounds.stopping import stop_sentences
from pipelines.workspace.round_summary import explain_rounds
from ui.charts import corrections, learning_curve
from ui.snapshot import Snapshot
from ui.tables import account_table, decision, key_metrics, round_table

NO_ROUND = "No round yet. Send the first images to the annotators with `dsmoe round open`."
NO_MODEL = "No model was evaluated yet. The curve starts when the first round is closed."
NO_PRE_ANNOTATIONS = "No pre-annotations yet. The first model makes them, from the second round on."


def show(snapshot: Snapshot) -> None:
    """Render the page."""
    st.header("Rounds")
    _show_key_metrics(snapshot)
    if not snapshot.rounds:
        st.info(NO_ROUND, icon=":material/flag:")
        return
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Learning curve", help="Circles are promoted models, crosses are refused ones.")
        chart = learning_curve(snapshot.rounds)
        if chart is None:
            st.info(NO_MODEL, icon=":material/show_chart:")
        else:
            st.vega_lite_chart(chart, width="stretch", alt="mAP on the test set over labelled boxes")
    with right:
        st.subheader("Corrections of the pre-annotations")
        bars = corrections(snapshot.rounds)
        if bars is None:
            st.info(NO_PRE_ANNOTATIONS, icon=":material/edit:")
        else:
            st.vega_lite_chart(
                bars, width="stretch", alt="shares of pre-annotations accepted, moved, relabelled, deleted"
            )
    st.subheader("All rounds")
    st.dataframe(
        round_table(snapshot.rounds), hide_index=True, column_config=_column_config(), placeholder="-"
    )
    for sentence in explain_rounds(snapshot.rounds):
        st.caption(escape_markdown(sentence))
    _show_signals(snapshot)
    _show_accounts(snapshot)


def _show_signals(snapshot: Snapshot) -> None:
    """Show what the control arm and the blind audit say, and whether labelling can stop."""
    sentences = [*audit_sentences(snapshot.rounds), *stop_sentences(snapshot.rounds)]
    if not sentences:
        return
    st.subheader(
        "Control arm, blind audit and stop signal",
        help="Random images against ranked ones; images without pre-annotations against the others; what "
        "more labels are expected to change.",
    )
    for sentence in sentences:
        st.caption(escape_markdown(sentence))


def _show_accounts(snapshot: Snapshot) -> None:
    """Show what the harvests took, and name the first images and boxes that were clipped or left out."""
    if not snapshot.accounts:
        return
    st.subheader(
        "Harvested annotations", help="Boxes = taken + clipped + left out; converted boxes are taken."
    )
    st.dataframe(account_table(snapshot.accounts), hide_index=True)
    last = max(snapshot.accounts)
    entries = snapshot.accounts[last].entries
    for entry in entries[:MAX_NAMED]:
        st.text(str(entry))
    if len(entries) > MAX_NAMED:
        st.text(f"and {len(entries) - MAX_NAMED} more in imports/round-{last}.json")


def _show_key_metrics(snapshot: Snapshot) -> None:
    metrics = key_metrics(snapshot)
    for column, metric in zip(st.columns(len(metrics)), metrics, strict=True):
        column.metric(
            metric.label,
            metric.value,
            delta=metric.change,
            help=metric.help,
            height="stretch",
            border=True,
        )
    if snapshot.rounds and snapshot.rounds[-1].promoted is None:
        last = snapshot.rounds[-1]
        share = last.answered / last.sent if last.sent else 0.0
        st.progress(share, text=f"Round {last.round} is {decision(last)}")


def _column_config() -> Mapping[str, ColumnConfig]:
    number = st.column_config.NumberColumn(width=66)
    share = st.column_config.NumberColumn(format="%.0f %%", width=76)
    seconds = st.column_config.NumberColumn(format="%.1f", width=76)
    mean_ap = st.column_config.NumberColumn(format="%.3f", width=88)
    added_help = "share of the round's boxes that annotators drew by hand"
    return {
        **dict.fromkeys(("Round", "Images", "Boxes"), number),
        "New": st.column_config.NumberColumn(width=60, help="boxes labelled in this round"),
        **dict.fromkeys((str(outcome).capitalize() for outcome in Outcome), share),
        "Added": st.column_config.NumberColumn(format="%.0f %%", width=76, help=added_help),
        **dict.fromkeys(("s/image", "s/box"), seconds),
        **dict.fromkeys(("mAP@.5", "mAP@.5:.95"), mean_ap),
        "Decision": st.column_config.TextColumn(width="large"),
    }
