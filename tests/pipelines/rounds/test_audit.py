"""Control arm and blind audit: estimates on simulated annotators whose behaviour is known."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from dsmoe_core.schema import Annotation, Arm, Box, Detection, Harvest, Outcome, Prediction, Routing
from pipelines.rounds.audit import MIN_IMAGES, audit_sentences, blind_audit, control_arm
from pipelines.workspace.audit import AuditImage, audit_images, matches
from pipelines.workspace.journal import SentTask

BOX, FAR = Box(0, 0, 10, 10), Box(50, 50, 60, 60)


def image(arm: Arm = Arm.RANKED, corrections: int = 1, seconds: float | None = None) -> AuditImage:
    return AuditImage(arm, False, corrections, accepted=2, shown=3, boxes=3, seconds=seconds)


def images(arm: Arm, mean: float, count: int, seed: int = 0) -> list[AuditImage]:
    rng = np.random.default_rng(seed)
    return [image(arm, int(n), 10.0 + 2.0 * float(n)) for n in rng.poisson(mean, count)]


def audited(blind_draws: float, accepts: float, count: int = 60) -> list[AuditImage]:
    """Four pre-annotations an image, which blind annotators draw and the others accept with these shares."""
    rng = np.random.default_rng(1)
    blind = [
        AuditImage(Arm.RANDOM, True, n, 0, 0, n, None, hidden=4, agreed=n)
        for n in rng.binomial(4, blind_draws, count).tolist()
    ]
    shown = [
        AuditImage(Arm.RANKED, False, 4 - n, n, 4, n, None) for n in rng.binomial(4, accepts, count).tolist()
    ]
    return blind + shown


def test_better_ranking_has_an_interval_above_zero() -> None:
    arm = control_arm(images(Arm.RANKED, 5.0, 60) + images(Arm.RANDOM, 2.0, 20, seed=1))
    assert (arm.ranked, arm.random, arm.enough) == (60, 20, True)
    assert arm.corrections is not None
    assert arm.corrections.low is not None
    assert 0 < arm.corrections.low < 3.0 < (arm.corrections.high or 0)
    assert arm.per_second is not None
    assert arm.per_second.value == pytest.approx(5 / 20 - 2 / 14, abs=0.04)


def test_interval_covers_the_true_difference() -> None:
    covered = 0
    for seed in range(20):
        arm = control_arm(images(Arm.RANKED, 3.0, 30, seed) + images(Arm.RANDOM, 2.0, 12, seed + 100))
        assert arm.corrections is not None
        covered += (arm.corrections.low or 0) <= 1.0 <= (arm.corrections.high or 0)
    assert covered >= 17


def test_seconds_of_programs_and_blind_images_do_not_count() -> None:
    arm = control_arm([image(), image(Arm.RANDOM), AuditImage(Arm.RANDOM, True, 9, 0, 0, 9)])
    assert (arm.ranked, arm.random, arm.enough) == (1, 1, False)
    assert arm.corrections is not None
    assert (arm.corrections.value, arm.corrections.low) == (0.0, None)
    assert arm.per_second is None


def test_no_images_give_no_estimates() -> None:
    assert control_arm([]).corrections is None
    empty = blind_audit([])
    assert (empty.blind, empty.shown, empty.enough) == (0, 0, False)
    assert empty.boxes is empty.predicted is empty.accepted is None
    assert json.loads(json.dumps(empty.to_dict()))["agreement"] is None
    assert audit_sentences([]) == []


def test_annotators_who_copy_are_noticed() -> None:
    copied = blind_audit(audited(blind_draws=0.6, accepts=0.95))
    assert copied.accepted_minus_agreement is not None
    assert (copied.accepted_minus_agreement.low or 0) > 0.2
    assert (copied.boxes.low or 0) > 0.5 if copied.boxes else False
    honest = blind_audit(audited(blind_draws=0.8, accepts=0.8))
    assert honest.accepted_minus_agreement is not None
    assert (honest.accepted_minus_agreement.low or 0) < 0 < (honest.accepted_minus_agreement.high or 0)


def test_shares_of_blind_images() -> None:
    rows = [AuditImage(Arm.RANDOM, True, 5, 0, 0, 5, None, hidden=3, agreed=2) for _ in range(MIN_IMAGES)]
    audit = blind_audit(rows + [image()] * MIN_IMAGES)
    assert audit.enough
    assert audit.predicted is not None
    assert audit.predicted.value == pytest.approx(2 / 5)
    assert audit.agreement is not None
    assert audit.agreement.value == pytest.approx(2 / 3)
    assert audit.accepted is not None
    assert audit.accepted.value == pytest.approx(2 / 3)
    assert audit.boxes is not None
    assert audit.boxes.value == pytest.approx(3 - 5)


def harvest(key: str, *boxes: Annotation, skipped: bool = False, **counts: int) -> Harvest:
    outcomes = {Outcome(name): n for name, n in counts.items()}
    return Harvest(key, boxes, 1, datetime(2026, 1, 2, tzinfo=UTC), skipped, outcomes, None, 0.001)


def test_records_of_tasks() -> None:
    spur, hole = Annotation(BOX, "spur"), Annotation(FAR, "hole")
    detections = (
        Detection(BOX, "spur", 0.9, {"spur": 0.9}, 0.1),
        Detection(FAR, "spur", 0.8, {"spur": 0.8}, 0.1),
    )
    hidden = {"blind": Prediction("blind", detections, Routing((), (), 0.0), 0.0, "m+b")}
    tasks = [
        SentTask("seed", 0, Arm.SEED, 0),
        SentTask("shown", 1, Arm.RANKED, 0, "entropy", 1.0, "m+b"),
        SentTask("blind", 1, Arm.RANDOM, 1, "entropy", 0.5),
        SentTask("skipped", 1, Arm.RANDOM, 2, "entropy", 0.4, "m+b"),
        SentTask("out", 1, Arm.RANDOM, 3, "entropy", 0.3, "m+b"),
    ]
    harvests = {
        "seed": harvest("seed", spur, added=1),
        "shown": harvest("shown", spur, hole, accepted=1, deleted=2, added=1),
        "blind": harvest("blind", spur, hole, added=2),
        "skipped": harvest("skipped", skipped=True),
    }
    shown, blind = audit_images(tasks, harvests, hidden)
    assert shown == AuditImage(Arm.RANKED, False, 3, 1, 3, 2)
    assert blind == AuditImage(Arm.RANDOM, True, 2, 0, 0, 2, None, hidden=2, agreed=1)
    copies = json.loads(json.dumps([shown.to_dict(), blind.to_dict()]))
    assert [AuditImage.from_dict(copy) for copy in copies] == [shown, blind]
    (_, unknown) = audit_images(tasks, harvests, {})
    assert (unknown.hidden, unknown.agreed) == (None, None)


def test_matches_need_class_and_place() -> None:
    boxes = [Annotation(BOX, "spur"), Annotation(FAR, "hole")]
    assert matches(boxes, boxes) == 2
    assert matches(boxes, [Annotation(BOX, "hole")]) == 0
    assert matches([], boxes) == 0
