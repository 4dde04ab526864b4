"""Stop signal: agreement of successive champions and gain of more boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dsmoe_core.schema import Arm
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.stopping import (
    HORIZON_BOXES,
    image_agreement,
    measure_agreement,
    signals,
    stop_sentences,
    stop_signal,
)
from pipelines.workspace.round_summary import ChampionAgreement
from tests.ui.snapshots import detection, prediction, row

Label = Callable[[LoopContext], None]


def run_rounds(context: LoopContext, label: Label, count: int, **settings: Any) -> None:
    before = context.workspace.settings
    changed = before.round.model_copy(update=settings)
    context.workspace.settings = before.model_copy(update={"round": changed})
    for _ in range(count):
        open_round(context)
        label(context)
        close_round(context)


def agreement(f1: float) -> ChampionAgreement:
    return ChampionAgreement("m0", "m1", 50, f1, f1 - 0.02, f1 + 0.02)


def rounds(values: list[float], f1: float | None, boxes: int = 400) -> list[Any]:
    rows = [row(i, map=value, boxes=boxes * (i + 1)) for i, value in enumerate(values)]
    if f1 is not None:
        rows[-1] = row(len(values) - 1, map=values[-1], boxes=boxes * len(values), champions=agreement(f1))
    return rows


def test_signal_needs_two_rounds() -> None:
    signal = stop_signal(rounds([0.5], None))
    assert (signal.rounds, signal.gain, signal.agreement, signal.stop) == (1, None, None, None)
    assert stop_sentences(rounds([0.5], None)) == []
    two = stop_signal(rounds([0.3, 0.4], None))
    assert two.gain is not None
    assert two.gain.more == HORIZON_BOXES
    assert two.stop is None
    assert len(stop_sentences(rounds([0.3, 0.4], 0.8))) == 2


@pytest.mark.parametrize(("f1", "stop"), [(0.97, True), (0.7, False)])
def test_flat_curve_and_equal_champions_stop(f1: float, stop: bool) -> None:
    assert stop_signal(rounds([0.5] * 16, f1, boxes=2000)).stop is stop


def test_rising_curve_goes_on() -> None:
    assert stop_signal(rounds([0.2, 0.3, 0.38, 0.45], 0.99)).stop is False


def test_rounds_that_are_open_or_not_evaluated_do_not_count() -> None:
    rows = [*rounds([0.3, 0.4], None), row(2, map=None, boxes=1200)]
    rows.append(row(3, state="open", map=0.9, boxes=1600))
    assert stop_signal(rows).rounds == 2


def test_agreement_of_two_predictions() -> None:
    one = prediction("a", detection("dent", 0.9), detection("scratch", 0.8)).detections
    assert image_agreement(one, one) == 1.0
    assert image_agreement(one, one[:1]) == pytest.approx(2 / 3)
    assert image_agreement(one, ()) == 0.0
    assert image_agreement((), ()) == 1.0


def test_rounds_of_the_loop_have_audit_and_agreement(context: LoopContext, label: Label) -> None:
    run_rounds(context, label, 3, budget=4, random_share=0.25, blind_share=0.25, duplicate_similarity=None)
    workspace = context.workspace
    rows = workspace.rounds()
    assert rows[0].audit == ()
    assert [(len(r.audit), sum(i.blind for i in r.audit)) for r in rows[1:]] == [(4, 1), (4, 1)]
    for r in rows[1:]:
        (blind,) = (i for i in r.audit if i.blind)
        assert blind.hidden is not None
        assert 0 <= (blind.agreed or 0) <= min(blind.hidden, blind.boxes)
        assert sum(i.arm is Arm.RANDOM for i in r.audit) == 1
        assert set(r.arms()) == {"blind", *(str(i.arm) for i in r.audit if not i.blind)}
    found = signals(rows)
    assert found["control_arm"]["ranked"] + found["control_arm"]["random"] == 6
    assert found["control_arm"]["enough"] is False
    assert found["blind_audit"]["blind"] == 2
    assert found["stop_signal"]["rounds"] == 3
    for r in rows[1:]:
        assert (r.champions is not None) == bool(r.promoted and len(workspace.images("pool")) > r.images)


def test_champions_are_compared_on_unlabelled_images(context: LoopContext, label: Label) -> None:
    run_rounds(context, label, 1)
    workspace = context.workspace
    first = workspace.champion() or ""
    assert measure_agreement(context, first) == {}  # it has no parent
    card = workspace.registry.card(first)
    folder = workspace.registry.folder("copy")
    folder.mkdir()
    for file in workspace.registry.folder(first).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    workspace.registry.register(card.model_copy(update={"id": "copy", "parent": first}))
    same = measure_agreement(context, "copy")["champions"]
    assert (same["before"], same["after"], same["images"], same["f1"]) == (first, "copy", 9, 1.0)
