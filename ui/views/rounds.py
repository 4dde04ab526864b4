"""Rounds: is the detector getting better, and how much work do its pre-labels save?"""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig

from dsmoe_core.schema import Outcome
from pipelines.rounds import RoundRow, sentences
from ui.charts import corrections, learning_curve
from ui.figures import decision, round_table
from ui.snapshot import Snapshot

NO_ROUND = "No round yet. Send the first pictures to the annotators with `dsmoe round open`."
NO_MODEL = "No model has been judged yet. The curve starts when the first round is closed."
NO_PRELABELS = "No pre-labels yet. They come with the first model, from the second round on."


def show(snapshot: Snapshot) -> None:
    """The page."""
    st.header("Rounds")
    _key_figures(snapshot)
    if not snapshot.rounds:
        st.info(NO_ROUND, icon=":material/flag:")
        return
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader(
            "Learning curve", help="A circle is a model that was promoted, a cross one that was refused."
        )
        chart = learning_curve(snapshot.rounds)
        if chart is None:
            st.info(NO_MODEL, icon=":material/show_chart:")
        else:
            st.vega_lite_chart(chart, width="stretch", alt="quality on the test set over labelled boxes")
    with right:
        st.subheader("What people did with the pre-labels")
        bars = corrections(snapshot.rounds)
        if bars is None:
            st.info(NO_PRELABELS, icon=":material/edit:")
        else:
            st.vega_lite_chart(
                bars, width="stretch", alt="shares of pre-labels accepted, moved, relabelled, deleted"
            )
    st.subheader("All rounds")
    st.dataframe(round_table(snapshot.rounds), hide_index=True, column_config=_columns(), placeholder="-")
    for sentence in sentences(snapshot.rounds):
        st.caption(sentence)


def _key_figures(snapshot: Snapshot) -> None:
    rounds = snapshot.rounds
    champion = next(
        (row for row in reversed(rounds) if row.model == snapshot.champion and row.promoted), None
    )
    before = [row for row in rounds if row.promoted and champion is not None and row.round < champion.round]
    quality, labelled, boxes, accepted, now = st.columns(5)
    gain = _difference(champion, before[-1] if before else None)
    quality.metric(
        "mAP@.5 of the model",
        "none yet" if champion is None or champion.map50 is None else f"{champion.map50:.2f}",
        delta=None if gain is None else f"{gain:+.2f}",
        help="of the model in use, on the fixed test set; the arrow compares it with the model before",
        height="stretch",
        border=True,
    )
    done = sum(key in snapshot.annotations for key in snapshot.pictures)
    labelled.metric(
        "Pictures labelled", f"{done:,} of {len(snapshot.pictures):,}", height="stretch", border=True
    )
    total = sum(len(known.annotations) for known in snapshot.annotations.values())
    boxes.metric("Boxes labelled", f"{total:,}", height="stretch", border=True)
    shares = [share for row in rounds if (share := row.share(Outcome.ACCEPTED)) is not None]
    accepted.metric(
        "Pre-labels kept as is",
        f"{shares[-1]:.0%}" if shares else "none shown",
        delta=f"{100 * (shares[-1] - shares[-2]):+.0f} %-points" if len(shares) > 1 else None,
        help="share of the last round's pre-labelled boxes that people accepted without a change",
        height="stretch",
        border=True,
    )
    now.metric("Rounds", len(rounds), height="stretch", border=True)
    if rounds and rounds[-1].promoted is None:
        last = rounds[-1]
        st.progress(
            last.answered / last.sent if last.sent else 0.0,
            text=f"Round {last.round} is {decision(last)}",
        )


def _difference(row: RoundRow | None, before: RoundRow | None) -> float | None:
    if row is None or before is None or row.map50 is None or before.map50 is None:
        return None
    return row.map50 - before.map50


def _columns() -> Mapping[str, ColumnConfig]:
    number = st.column_config.NumberColumn(width=72)
    share = st.column_config.NumberColumn(format="%.0f %%", width=84)
    quality = st.column_config.NumberColumn(format="%.3f", width=96)
    by_hand = "share of the round's boxes that people drew by hand"
    return {
        **dict.fromkeys(("Round", "Pictures", "Boxes", "New boxes"), number),
        **dict.fromkeys((str(outcome).capitalize() for outcome in Outcome), share),
        "Added": st.column_config.NumberColumn(format="%.0f %%", width=84, help=by_hand),
        **dict.fromkeys(("mAP@.5", "mAP@.5:.95"), quality),
        "Decision": st.column_config.TextColumn(width="large"),
    }
