"""Key metrics, the table of rounds and expert use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsmoe_core.schema import Detection
from pipelines.workspace.annotation_time import ALL, Effort
from tests.ui.snapshots import BOX, detection, labelled, prediction, row, snapshot
from ui.tables import count_experts, decision, expert_usage_table, expert_use, key_metrics, round_table


def test_round_table_has_shares_in_percent_and_none_without_pre_annotations() -> None:
    later = row(
        1, accepted=6, moved=2, relabelled=1, deleted=1, added=5, promoted=False, reason="refused: worse"
    )
    first, second = round_table([row(0), later])
    assert (first["Accepted"], first["Added"], first["Decision"]) == (None, 100.0, "promoted: first model")
    shares = [second[name] for name in ("Accepted", "Moved", "Relabelled", "Deleted", "Added")]
    assert shares == [60.0, 20.0, 10.0, 10.0, 25.0]
    assert (second["Images"], second["Boxes"], second["mAP@.5"]) == (20, 40, 0.5)
    assert second["Decision"] == "refused: worse"


def test_round_table_has_the_annotation_time_where_it_was_measured() -> None:
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
def test_decision_of_a_round(changes: dict[str, object], expected: str) -> None:
    assert decision(row(1, **changes)) == expected


def led_by(expert: int, label: str, score: float = 0.9) -> Detection:
    return replace(detection(label, score), expert=expert)


def test_expert_use_is_the_share_of_the_boxes_of_a_class_that_an_expert_leads() -> None:
    predictions = [
        prediction("a", led_by(0, "dent"), led_by(2, "dent", 0.8), experts={0: 0.6, 2: 0.4}),
        prediction("b", led_by(0, "dent"), led_by(1, "scratch"), experts={0: 0.2, 1: 0.8}),
        prediction("c", led_by(3, "scratch", 0.2), experts={3: 1.0}),  # score below the threshold
    ]
    use = expert_use(snapshot(predictions={p.key: p for p in predictions}), "pre-annotations")
    assert list(use) == ["scratch", "dent"]  # the class book's order
    assert use["dent"] == pytest.approx([2 / 3, 0.0, 1 / 3, 0.0])
    assert use["scratch"] == pytest.approx([0.0, 1.0, 0.0, 0.0])


def test_expert_use_by_annotations_is_that_of_the_overlapping_detections() -> None:
    def at_the_truth(found: Detection) -> Detection:
        return replace(found, box=BOX)

    predictions = {
        p.key: p
        for p in (
            prediction("a", led_by(1, "scratch"), experts={1: 1.0}),
            prediction("t", led_by(0, "dent"), experts={0: 1.0}),
            prediction("b", led_by(0, "dent"), experts={0: 1.0}),
        )
    }
    predictions = {
        key: replace(p, detections=tuple(map(at_the_truth, p.detections))) for key, p in predictions.items()
    }
    annotations = {"key of a": labelled("a", "rust", "scratch")}
    use = expert_use(snapshot(predictions=predictions, annotations=annotations), "annotations")
    assert use == {"scratch": [0.0, 1.0], "dent": [1.0, 0.0], "rust": [0.0, 1.0]}
    apart = {key: replace(p, detections=()) for key, p in predictions.items()}
    assert expert_use(snapshot(predictions=apart, annotations=annotations), "annotations") == {}


def test_expert_usage_table_includes_unused_experts() -> None:
    predictions = [prediction("a", experts={2: 1.0}), prediction("b", experts={0: 0.5, 2: 0.5})]
    rows = expert_usage_table(snapshot(predictions={p.key: p for p in predictions}))
    assert [r["Selected for"] for r in rows] == [50.0, 0.0, 100.0]
    assert [r["Mean weight"] for r in rows] == [0.25, 0.0, 0.75]


def test_no_experts_without_predictions() -> None:
    assert count_experts(snapshot()) == 0
    assert expert_usage_table(snapshot()) == []
    assert expert_use(snapshot(), "pre-annotations") == {}


def test_key_metrics_compare_the_model_in_use_with_the_one_before() -> None:
    rounds = (
        row(0, map50=0.25),
        row(1, map50=0.125, promoted=False, accepted=1, moved=3),
        row(2, map50=0.5, accepted=3, moved=1),
    )
    annotations = {"key of a": labelled("a", "dent", "dent"), "key of b": labelled("b")}
    current = snapshot(rounds=rounds, champion="m2", annotations=annotations)
    metrics = {m.label: m for m in key_metrics(current)}
    assert metrics["mAP@.5 of the model"][1:3] == ("0.50", "+0.25")
    assert metrics["Pre-annotations accepted"][1:3] == ("75%", "+50 %-points")
    assert metrics["Images labelled"].value == "2"
    assert metrics["Boxes labelled"].value == "2"
    rolled_back = {m.label: m for m in key_metrics(snapshot(rounds=rounds, champion="m0"))}
    assert rolled_back["mAP@.5 of the model"][1:3] == ("0.25", None)


def test_key_metrics_of_a_new_workspace_have_no_values() -> None:
    metrics = key_metrics(snapshot())
    assert [m.value for m in metrics] == ["none yet", "0", "0", "none shown", "0"]
    assert [m.change for m in metrics] == [None] * 5
