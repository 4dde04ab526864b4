"""Numbers about rounds and experts."""

from __future__ import annotations

import pytest

from pipelines.workspace.annotation_time import ALL, Effort
from tests.ui.snapshots import detection, found, labelled, row, snapshot
from ui.tables import count_experts, decision, expert_use, key_figures, load, round_table


def test_the_table_has_shares_in_per_cent_and_gaps_where_there_is_nothing_to_share() -> None:
    later = row(
        1, accepted=6, moved=2, relabelled=1, deleted=1, added=5, promoted=False, reason="refused: worse"
    )
    first, second = round_table([row(0), later])
    assert (first["Accepted"], first["Added"], first["Decision"]) == (None, 100.0, "promoted: first model")
    shares = [second[name] for name in ("Accepted", "Moved", "Relabelled", "Deleted", "Added")]
    assert shares == [60.0, 20.0, 10.0, 10.0, 25.0]
    assert (second["Images"], second["Boxes"], second["mAP@.5"]) == (20, 40, 0.5)
    assert second["Decision"] == "refused: worse"


def test_the_table_says_what_a_image_and_a_box_cost_where_that_is_known() -> None:
    timed, untimed = round_table([row(0, effort={ALL: Effort(4, 12.5, 2.5)}), row(1)])
    assert (timed["s/image"], timed["s/box"]) == (12.5, 2.5)
    assert (untimed["s/image"], untimed["s/box"]) == (None, None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"promoted": True}, "promoted"),
        ({"promoted": False}, "refused"),
        ({"promoted": None, "state": "open", "answered": 3}, "with the annotators: 3 of 10 back"),
        ({"promoted": None, "state": "closing"}, "in training"),
        ({"promoted": None, "state": "opening"}, "being prepared"),
    ],
)
def test_a_round_says_how_it_stands(changes: dict[str, object], expected: str) -> None:
    assert decision(row(1, **changes)) == expected


def test_expert_use_is_the_mean_over_the_images_that_show_a_class() -> None:
    detections = [
        found("a", detection("dent", 0.9), detection("dent", 0.8), experts={0: 0.6, 2: 0.4}),
        found("b", detection("dent", 0.9), detection("scratch", 0.9), experts={0: 0.2, 1: 0.8}),
        found("c", detection("scratch", 0.2), experts={3: 1.0}),  # too faint to count
    ]
    seen = snapshot(detections={f.key: f for f in detections})
    use = expert_use(seen, "detections")
    assert list(use) == ["scratch", "dent"]  # the class book's order
    assert use["dent"] == pytest.approx([0.4, 0.4, 0.2, 0.0])
    assert use["scratch"] == pytest.approx([0.2, 0.8, 0.0, 0.0])
    assert all(sum(weights) == pytest.approx(1.0) for weights in use.values())


def test_expert_use_by_what_people_said_counts_the_test_set_and_unknown_classes_last() -> None:
    detections = [found("a", experts={1: 1.0}), found("t", experts={0: 1.0}), found("b", experts={0: 1.0})]
    seen = snapshot(
        detections={f.key: f for f in detections},
        annotations={"key of a": labelled("a", "rust", "rust", "scratch")},
    )
    use = expert_use(seen, "annotations")
    assert use == {"scratch": [0.0, 1.0], "dent": [1.0, 0.0], "rust": [0.0, 1.0]}


def test_load_tells_who_idles() -> None:
    detections = [found("a", experts={2: 1.0}), found("b", experts={0: 0.5, 2: 0.5})]
    rows = load(snapshot(detections={f.key: f for f in detections}))
    assert [r["Looks at"] for r in rows] == [50.0, 0.0, 100.0]
    assert [r["Mean weight"] for r in rows] == [0.25, 0.0, 0.75]


def test_nothing_found_means_no_experts() -> None:
    assert count_experts(snapshot()) == 0
    assert load(snapshot()) == []
    assert expert_use(snapshot(), "detections") == {}


def test_key_figures_compare_the_model_in_use_with_the_one_before() -> None:
    rounds = (
        row(0, map50=0.25),
        row(1, map50=0.125, promoted=False, accepted=1, moved=3),
        row(2, map50=0.5, accepted=3, moved=1),
    )
    said = {"key of a": labelled("a", "dent", "dent"), "key of b": labelled("b")}
    figures = {f.label: f for f in key_figures(snapshot(rounds=rounds, champion="m2", annotations=said))}
    assert figures["mAP@.5 of the model"][1:3] == ("0.50", "+0.25")
    assert figures["Pre-annotations kept as is"][1:3] == ("75%", "+50 %-points")
    assert figures["Images labelled"][1:] == ("2", None, "of 4 in the workspace")
    assert figures["Boxes labelled"].value == "2"
    rolled_back = {f.label: f for f in key_figures(snapshot(rounds=rounds, champion="m0"))}
    assert rolled_back["mAP@.5 of the model"][1:3] == ("0.25", None)


def test_key_figures_of_a_new_workspace_claim_nothing() -> None:
    figures = key_figures(snapshot())
    assert [f.value for f in figures] == ["none yet", "0", "0", "none shown", "0"]
    assert [f.change for f in figures] == [None] * 5
