"""Approval, shadow mode and rollback, from round to round, with the stub detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsmoe_core.errors import ModelError
from dsmoe_core.schema import Annotation, Box, Detection, ImageRecord, Prediction, Vocabulary
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.context import LoopContext
from pipelines.rounds.dispatch import PlannedTasks
from pipelines.rounds.gate import Outcome
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.shadow import ImageCorrections, compare_corrections, corrections_needed
from pipelines.settings.gate import GateSettings
from pipelines.workspace.champion import promote_by_hand, refuse_by_hand, rollback_champion
from pipelines.workspace.workspace import Workspace

Label = Callable[[LoopContext], None]


class BlindModels(StubDetector):
    """Models of these rounds detect nothing."""

    def __init__(self, *rounds: int) -> None:
        self.rounds = rounds

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        for prediction in super().predict(model, vocabulary, images):
            blind = model.name.startswith(tuple(f"r{number}-" for number in self.rounds))
            yield replace(prediction, detections=()) if blind else prediction


def with_gate(context: LoopContext, **gate: Any) -> None:
    workspace = context.workspace
    workspace.settings = workspace.settings.model_copy(update={"gate": GateSettings(**gate)})


def run_round(context: LoopContext, label: Label) -> dict[str, Any]:
    open_round(context)
    label(context)
    close_round(context)
    return dict(context.workspace.journal.rounds()[-1].result or {})


def actions(workspace: Workspace, model: str) -> list[str]:
    return [event.action for event in workspace.registry.events(model)]


def test_candidate_waits_for_approval(context: LoopContext, label: Label) -> None:
    with_gate(context, checks=(), approval=True)
    workspace = context.workspace
    first = run_round(context, label)
    assert (first["verdict"], workspace.journal.value("held")) == ("promoted", None)
    second = run_round(context, label)
    assert (second["verdict"], second["promoted"]) == ("held", False)
    assert workspace.journal.value("held") == second["model"]
    assert workspace.champion() == first["model"]
    promote_by_hand(workspace, second["model"], "looks right")
    assert (workspace.champion(), workspace.journal.value("held")) == (second["model"], None)
    assert actions(workspace, second["model"]) == ["hold", "promote"]
    assert workspace.registry.events(second["model"])[-1].author


def test_held_candidate_is_refused_or_replaced(context: LoopContext, label: Label) -> None:
    with_gate(context, checks=(), approval=True)
    workspace = context.workspace
    first, second, third = (run_round(context, label)["model"] for _ in range(3))
    assert workspace.registry.held() == third
    assert actions(workspace, second) == ["hold", "refuse"]
    refuse_by_hand(workspace, third, "misses spurs")
    assert (workspace.registry.held(), workspace.champion()) == (None, first)
    event = workspace.registry.events(third)[-1]
    assert (event.action, event.reason) == ("refuse", "misses spurs")
    with pytest.raises(ModelError, match="is the champion"):
        refuse_by_hand(workspace, first, "no")


def test_another_promotion_ends_waiting(context: LoopContext, label: Label) -> None:
    with_gate(context, checks=(), approval=True)
    registry = context.workspace.registry
    first, second = (run_round(context, label)["model"] for _ in range(2))
    registry.register(registry.card(first).model_copy(update={"id": "other"}))
    registry.promote("other", "by hand")
    assert registry.held() is None
    assert actions(context.workspace, second) == ["hold", "refuse"]


@pytest.mark.parametrize(("blind", "verdict"), [(0, "promoted"), (1, "refused")])
def test_corrections_of_the_next_round_decide_on_a_shadow(
    context: LoopContext, label: Label, blind: int, verdict: str
) -> None:
    """The champion, or the shadow, detects nothing, so it needs a correction for every box."""
    context = replace(context, detector=BlindModels(blind))
    with_gate(context, checks=(), shadow=True, confidence=0.5)
    workspace = context.workspace
    first, second = (run_round(context, label) for _ in range(2))
    assert (first["verdict"], second["verdict"]) == ("promoted", "shadow")
    assert workspace.registry.shadow() == second["model"]
    assert workspace.champion() == first["model"]
    third = run_round(context, label)
    shadow = third["shadow"]
    assert (shadow["model"], shadow["verdict"]) == (second["model"], verdict)
    values = shadow["check"]["values"]
    assert values["images"] == 3
    assert (values["shadow"] < values["champion"]) == (verdict == "promoted")
    parent = workspace.registry.card(third["model"]).parent
    assert parent == (second if verdict == "promoted" else first)["model"]
    assert workspace.registry.shadow() == third["model"]


def test_shadow_that_wins_is_held_if_promotions_are_approved(context: LoopContext, label: Label) -> None:
    context = replace(context, detector=BlindModels(0))
    with_gate(context, checks=(), shadow=True, approval=True, confidence=0.5)
    first, second, third = (run_round(context, label) for _ in range(3))
    registry = context.workspace.registry
    assert third["shadow"]["verdict"] == "held"
    assert (registry.held(), registry.shadow()) == (second["model"], third["model"])
    assert registry.champion() == first["model"]


def detection(x: float, label: str, score: float = 0.9) -> Detection:
    return Detection(Box(x, 0, x + 10, 10), label, score, {label: score}, 0.0)


def test_corrections_are_boxes_to_add_delete_and_relabel() -> None:
    truth = [Annotation(Box(0, 0, 10, 10), "spur"), Annotation(Box(50, 0, 60, 10), "open")]
    assert corrections_needed([], truth) == 2
    assert corrections_needed([detection(0, "spur"), detection(50, "open")], truth) == 0
    assert corrections_needed([detection(1, "spur"), detection(50, "spur")], truth) == 1
    assert corrections_needed([detection(0, "spur"), detection(90, "open")], truth) == 2
    assert (
        corrections_needed([detection(0, "spur"), detection(0, "open", 0.95), detection(50, "open")], truth)
        == 1
    )
    assert corrections_needed([detection(0, "spur")], []) == 1


@pytest.mark.parametrize(
    ("shadow", "champion", "outcome"),
    [
        ([0] * 20, [2, 1] * 10, Outcome.PASS),
        ([2, 1] * 10, [0] * 20, Outcome.FAIL),
        ([1] * 20, [1] * 20, Outcome.FAIL),
        ([0, 2] * 10, [2, 0] * 9 + [2, 2], Outcome.NOT_ENOUGH_EVIDENCE),
        ([0] * 5, [9] * 5, Outcome.NOT_ENOUGH_EVIDENCE),
    ],
)
def test_paired_corrections(shadow: list[int], champion: list[int], outcome: Outcome) -> None:
    pairs = zip(shadow, champion, strict=True)
    images = [ImageCorrections(str(i), *pair) for i, pair in enumerate(pairs)]
    assert compare_corrections(images, GateSettings()).outcome is outcome


def test_rollback_restores_class_book_and_pre_annotations(context: LoopContext, label: Label) -> None:
    with_gate(context, checks=())
    workspace = context.workspace
    first = run_round(context, label)["model"]
    book = workspace.class_book().version
    open_round(context)
    tasks = [task for task in workspace.journal.tasks(1) if task.version]
    before = {task.image.key: task.prediction for task in PlannedTasks(workspace, tasks)}
    assert any(prediction.detections for prediction in before.values() if prediction)

    file = workspace.class_books.file
    file.write_text(file.read_text() + "# edited\n")
    text = file.read_text().replace("description: ", "description: clearly visible ", 1)
    file.write_text(text)
    workspace.class_books.publish(None, author="Ada", force_reason="for a test")
    workspace.reload_class_book()
    changed = workspace.class_book().version
    assert changed != book
    label(context)
    close_round(context)
    second = workspace.champion() or ""
    assert second != first
    assert workspace.registry.promoted_with(second) == changed

    done = rollback_champion(workspace, "worse on the line")
    assert (done.model, done.class_book, done.replaced_book) == (first, book, changed)
    assert workspace.class_books.published_version() == workspace.class_book().version == book
    images = [workspace.images_by_key()[key] for key in before]
    context.ensure_predictions(first, images)
    version = workspace.prediction_version(workspace.champion() or "")
    again = [replace(task, version=version) for task in tasks]
    assert {task.image.key: task.prediction for task in PlannedTasks(workspace, again)} == before
    assert actions(workspace, first) == ["promote", "rollback"]
    with pytest.raises(ModelError, match="no champion before"):
        rollback_champion(workspace, "further")


def test_rollback_can_keep_the_class_book(context: LoopContext, label: Label) -> None:
    with_gate(context, checks=())
    workspace = context.workspace
    first = run_round(context, label)["model"]
    run_round(context, label)
    done = rollback_champion(workspace, "worse", keep_class_book=True)
    assert (done.model, done.replaced_book) == (first, None)
