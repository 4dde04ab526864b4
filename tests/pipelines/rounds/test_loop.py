"""The journey of an image, uninterrupted: what is sent, taken in, learned, promoted and refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from annotate.studio.fake import FakeStudio
from dsmoe_core.errors import WorkspaceError
from dsmoe_core.schema import ImageRecord, Outcome, Prediction, Vocabulary
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.retraining import evaluate_candidate
from pipelines.workspace.round_summary import explain_rounds
from pipelines.workspace.workspace import Workspace

Label = Callable[[LoopContext], None]


def play(context: LoopContext, label: Label, rounds: int) -> None:
    for _ in range(rounds):
        open_round(context)
        label(context)
        close_round(context)


def test_the_seed_round_is_random_and_bare_and_its_model_becomes_champion(
    context: LoopContext, label: Label
) -> None:
    row = open_round(context)
    assert (row.round, row.state, row.sent, row.answered) == (0, "open", 3, 0)
    assert {task.arm for task in context.workspace.journal.tasks(0)} == {"seed"}
    tasks = context.studio.open_tasks(context.project())
    assert [task.pre_annotations for task in tasks] == [()] * 3
    label(context)
    row = close_round(context)
    assert (row.state, row.promoted, row.model) == ("closed", True, context.workspace.champion())
    assert row.share(Outcome.ADDED) == 1.0
    assert row.share(Outcome.ACCEPTED) is None
    assert row.images == row.new_images == 3
    assert 0 < (row.map or 0) <= 1


class Hesitant(StubDetector):
    """Says nearly nothing aloud."""

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        for one in super().predict(model, vocabulary, images):
            yield replace(one, detections=tuple(replace(f, score=f.score * 0.04) for f in one.detections))


def test_models_are_judged_by_what_they_find_faintly_too_but_nobody_is_shown_it(
    context: LoopContext, label: Label
) -> None:
    play(context, label, 1)
    usual = context.workspace.rounds()[0].map or 0
    model = context.workspace.champion() or ""
    card = context.workspace.registry.card(model)
    context.workspace.registry.register(card.model_copy(update={"evaluation": None}))
    context.workspace.prediction_store.path(context.workspace.prediction_version(model)).unlink()
    hesitant = replace(context, detector=Hesitant())
    evaluate_candidate(hesitant, model)
    scores = context.workspace.registry.card(model).evaluation
    assert scores is not None
    assert scores.map == usual > 0
    kept = context.workspace.prediction_store.load(context.workspace.prediction_version(model))
    assert kept.keys() == {p.key for p in context.workspace.images("test")}
    assert not any(one.detections for one in kept.values())


def test_later_rounds_have_pre_annotations_most_useful_first_with_a_control_arm(
    context: LoopContext, label: Label
) -> None:
    play(context, label, 1)
    open_round(context)
    sent = context.workspace.journal.tasks(1)
    assert sorted(task.arm for task in sent) == ["random", "ranked", "ranked"]
    doubts = [task.uncertainty or 0.0 for task in sent]
    assert doubts == sorted(doubts, reverse=True)
    assert {task.version for task in sent} == {
        context.workspace.prediction_version(context.workspace.champion() or "")
    }
    shown = context.studio.open_tasks(context.project())
    assert [task.key for task in shown] == [task.key for task in sent]
    assert any(task.pre_annotations for task in shown)


def test_lineage_runs_from_model_to_data_and_words(context: LoopContext, label: Label) -> None:
    play(context, label, 3)
    workspace = context.workspace
    rows = workspace.rounds()
    assert [row.images for row in rows] == [3, 6, 9]
    versions = [workspace.dataset_version(row.dataset_version or "") for row in rows]
    assert [v.parent for v in versions] == [None, versions[0].id, versions[1].id]
    assert [len(v.train) for v in versions] == [3, 6, 9]
    assert [v.boxes for v in versions] == [row.boxes for row in rows]
    champion = None
    for row, version in zip(rows, versions, strict=True):
        card = workspace.registry.card(row.model or "")
        assert (card.parent, card.dataset_version) == (champion, version.id)
        assert card.class_book == version.class_book == workspace.class_book().version
        champion = row.model if row.promoted else champion
    assert workspace.champion() == champion
    test_keys = {p.key for p in workspace.images("test")}
    assert not test_keys & {task.key for task in workspace.journal.tasks()}
    assert not test_keys & {item.key for item in versions[-1].train}


def test_a_candidate_that_is_no_better_is_refused_and_the_table_says_why(
    context: LoopContext, label: Label
) -> None:
    play(context, label, 4)
    rows = context.workspace.rounds()
    best = rows[0]
    refused = 0
    for row in rows[1:]:
        assert row.promoted == ((row.map or 0) > (best.map or 0))
        if row.promoted:
            best = row
        else:
            refused += 1
            assert row.reason == f"refused: mAP {row.map:.3f} is not above the champion's {best.map:.3f}"
    assert refused, "the blocks are chosen so that colours saturate; without a refusal this tests nothing"
    assert len(explain_rounds(rows)) == refused
    assert f"round {best.round}'s model stays champion" in explain_rounds(rows)[-1]


def test_a_champion_turned_by_hand_while_people_label_is_the_parent_and_the_measure(
    context: LoopContext, label: Label
) -> None:
    play(context, label, 1)
    registry, first = context.workspace.registry, context.workspace.champion() or ""
    open_round(context)
    shutil.copytree(registry.folder(first), registry.folder("by-hand"))
    card = registry.card(first)
    assert card.evaluation is not None
    perfect = card.evaluation.model_copy(update={"map": 1.0})
    registry.register(card.model_copy(update={"id": "by-hand", "evaluation": perfect}))
    registry.promote("by-hand", "it is perfect")
    label(context)
    row = close_round(context)
    assert registry.card(row.model or "").parent == "by-hand"
    assert row.reason == f"refused: mAP {row.map:.3f} is not above the champion's 1.000"
    assert context.workspace.champion() == "by-hand"


def test_a_round_closes_only_when_all_came_back_or_when_told_so(
    context: LoopContext, label: Label, blocks: Path
) -> None:
    open_round(context)
    project = context.project()
    first, *others = context.studio.open_tasks(project)
    context.studio.submit(project, first, [], seconds=1.0)
    with pytest.raises(WorkspaceError, match="2 of 3 images of round 0 are not annotated yet"):
        close_round(context)
    assert context.workspace.rounds()[0].answered == 1
    row = close_round(context, partial=True)
    assert (row.sent, row.answered, row.images) == (3, 1, 1)
    for task in others:
        context.studio.submit(project, task, [], seconds=1.0)
    play(context, label, 1)
    assert context.workspace.rounds()[1].images == 6  # the two latecomers count from now on


def test_images_that_stayed_out_are_shown_what_the_next_model_finds(
    context: LoopContext, label: Label
) -> None:
    play(context, label, 1)
    open_round(context)
    project = context.project()
    first, *others = context.studio.open_tasks(project)
    context.studio.submit(project, first, [], seconds=1.0)
    row = close_round(context, partial=True)
    context.workspace.registry.promote(row.model or "", "by hand, so that the champion is another one")
    open_round(context)
    left = {task.key: task for task in context.studio.open_tasks(project) if task.round == 1}
    assert left.keys() == {task.key for task in others}
    for task in left.values():
        context.studio.submit(project, task, task.pre_annotations, seconds=1.0)
    shown = {h.key: h.version for h in context.studio.harvest(project)}
    assert {shown[key] for key in left} == {context.workspace.prediction_version(row.model or "")}


def test_a_blind_share_is_sent_without_pre_annotations(context: LoopContext, label: Label) -> None:
    settings = context.workspace.settings
    blind = settings.round.model_copy(update={"blind_share": 0.34})
    context.workspace.settings = settings.model_copy(update={"round": blind})
    play(context, label, 1)
    open_round(context)
    tasks = context.studio.open_tasks(context.project())
    assert sorted(task.prediction_id is None for task in tasks) == [False, False, True]


def test_skipped_images_teach_nothing(context: LoopContext, label: Label) -> None:
    open_round(context)
    project = context.project()
    skipped, *_ = context.studio.open_tasks(project)
    context.studio.submit(project, skipped, [], seconds=1.0, skipped=True)
    label(context)
    row = close_round(context)
    assert (row.answered, row.images) == (3, 2)
    version = context.workspace.dataset_version(row.dataset_version or "")
    assert skipped.key not in {item.key for item in version.train}


def test_a_round_of_skipped_images_waits_for_one_that_is_not(context: LoopContext) -> None:
    open_round(context)
    project = context.project()
    for task in context.studio.open_tasks(project):
        context.studio.submit(project, task, [], seconds=1.0, skipped=True)
    for _ in range(2):
        with pytest.raises(WorkspaceError, match="all were skipped"):
            close_round(context)
    assert context.workspace.rounds()[0].state == "open"


def test_an_exhausted_pool_is_said_and_leaves_no_round_behind(context: LoopContext, label: Label) -> None:
    play(context, label, 4)
    with pytest.raises(WorkspaceError, match="no image is left in the pool"):
        open_round(context)
    assert len(context.workspace.rounds()) == 4
    with pytest.raises(WorkspaceError, match="no round is open"):
        close_round(context)


def test_a_class_book_that_changed_judges_the_champion_anew(
    context: LoopContext, label: Label, workspace: Workspace
) -> None:
    play(context, label, 1)
    champion = workspace.champion() or ""
    before = workspace.registry.card(champion).evaluation
    open_round(context)
    label(context)
    book = workspace.class_book()
    book.with_description("rust", "an orange-brown block", "person", "someone").save(
        workspace.path / "classes.yaml"
    )
    workspace.class_books.publish(None, author="someone", force_reason="for a test")
    changed = replace(context, workspace=Workspace.open(workspace.path))
    changed = replace(changed, studio=FakeStudio(workspace.path / "studio" / "fake.json"))
    row = close_round(changed)
    after = workspace.registry.card(champion).evaluation
    assert before is not None
    assert after is not None
    assert before.evaluated_on != after.evaluated_on
    assert after.evaluated_on == workspace.registry.card(row.model or "").evaluation.evaluated_on  # type: ignore[union-attr]
