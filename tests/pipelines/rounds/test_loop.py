"""Uninterrupted rounds: what is sent, harvested, trained, evaluated, promoted and refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from annotate.studio.fake import FakeStudio
from dsmoe_core.errors import WorkspaceError
from dsmoe_core.schema import ImageRecord, Outcome, Prediction, Vocabulary
from dsmoe_core.uncertainty.calibration import UncertaintyCalibration
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.promotion import evaluate
from pipelines.workspace.round_summary import explain_rounds
from pipelines.workspace.workspace import Workspace

Label = Callable[[LoopContext], None]


def run_rounds(context: LoopContext, label: Label, count: int) -> None:
    for _ in range(count):
        open_round(context)
        label(context)
        close_round(context)


def test_seed_round_is_random_without_pre_annotations_and_its_model_becomes_champion(
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


class LowScoreDetector(StubDetector):
    """Scores that are too low to be stored or shown."""

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        for prediction in super().predict(model, vocabulary, images):
            low = tuple(replace(d, score=d.score * 0.04) for d in prediction.detections)
            yield replace(prediction, detections=low)


def test_evaluation_uses_low_scores_that_are_not_stored(context: LoopContext, label: Label) -> None:
    run_rounds(context, label, 1)
    usual = context.workspace.rounds()[0].map or 0
    workspace, model = context.workspace, context.workspace.champion() or ""
    for name in ("evaluation.json", "evaluation.safetensors"):
        (workspace.registry.folder(model) / name).unlink()
    workspace.prediction_store.path(workspace.prediction_version(model)).unlink()
    evaluate(replace(context, detector=LowScoreDetector()), model)
    metrics = workspace.registry.evaluation(model)
    assert metrics is not None
    assert metrics.map == usual > 0
    stored = workspace.prediction_store.load(workspace.prediction_version(model))
    assert stored.keys() == {p.key for p in workspace.images("test")}
    assert not any(prediction.detections for prediction in stored.values())


def test_evaluation_calibrates_the_uncertainty_of_the_model(context: LoopContext, label: Label) -> None:
    run_rounds(context, label, 1)
    workspace, model = context.workspace, context.workspace.champion() or ""
    calibration = UncertaintyCalibration.load(workspace.registry.folder(model))
    assert calibration is not None
    assert calibration.images == len(workspace.images("test"))
    assert calibration.evaluated_on.endswith(f"+{workspace.class_book().version}")
    stored = workspace.prediction_store.load(workspace.prediction_version(model))
    tested = [stored[image.key] for image in workspace.images("test")]
    assert all(p.risks.keys() == {"missed", "corrections"} for p in tested)
    assert all(0 <= d.risks["correct"] <= 1 for p in tested for d in p.detections)


def test_later_rounds_are_ordered_by_score_with_a_control_arm_and_pre_annotations(
    context: LoopContext, label: Label
) -> None:
    run_rounds(context, label, 1)
    open_round(context)
    tasks = context.workspace.journal.tasks(1)
    assert sorted(task.arm for task in tasks) == ["random", "ranked", "ranked"]
    scores = [task.score or 0.0 for task in tasks]
    assert scores == sorted(scores, reverse=True)
    version = context.workspace.prediction_version(context.workspace.champion() or "")
    assert {task.version for task in tasks} == {version}
    open_tasks = context.studio.open_tasks(context.project())
    assert [task.key for task in open_tasks] == [task.key for task in tasks]
    assert any(task.pre_annotations for task in open_tasks)


def test_each_model_has_its_parent_dataset_and_class_book(context: LoopContext, label: Label) -> None:
    run_rounds(context, label, 3)
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


def test_candidate_without_gain_is_refused_and_explained(context: LoopContext, label: Label) -> None:
    run_rounds(context, label, 4)
    rows = context.workspace.rounds()
    best = rows[0]
    refused = []
    for row in rows[1:]:
        assert row.promoted == ((row.map or 0) > (best.map or 0))
        if row.promoted:
            best = row
        else:
            refused.append(row)
            assert f"{row.map:.3f}" in (row.reason or "")
            assert f"{best.map:.3f}" in (row.reason or "")
    assert refused, "the colours are chosen so that the metrics saturate; this test needs a refusal"
    sentences = explain_rounds(rows)
    assert len(sentences) == len(refused)
    for row, sentence in zip(refused, sentences, strict=True):
        assert f"{row.map:.3f}" in sentence


def test_champion_promoted_by_hand_during_a_round_is_parent_and_reference(
    context: LoopContext, label: Label
) -> None:
    run_rounds(context, label, 1)
    registry, first = context.workspace.registry, context.workspace.champion() or ""
    open_round(context)
    shutil.copytree(registry.folder(first), registry.folder("by-hand"))
    metrics = registry.evaluation(first)
    assert metrics is not None
    registry.register(registry.card(first).model_copy(update={"id": "by-hand"}))
    registry.save_evaluation("by-hand", metrics.model_copy(update={"map": 1.0}))
    registry.promote("by-hand", "it is perfect")
    label(context)
    row = close_round(context)
    assert registry.card(row.model or "").parent == "by-hand"
    assert row.promoted is False
    assert f"{row.map:.3f}" in (row.reason or "")
    assert "1.000" in (row.reason or "")
    assert context.workspace.champion() == "by-hand"


def test_round_closes_when_all_images_came_back_or_when_partial(context: LoopContext, label: Label) -> None:
    open_round(context)
    project = context.project()
    first, *others = context.studio.open_tasks(project)
    context.studio.submit(project, first, [], seconds=1.0)
    with pytest.raises(WorkspaceError, match="2 of 3"):
        close_round(context)
    assert context.workspace.rounds()[0].answered == 1
    row = close_round(context, partial=True)
    assert (row.sent, row.answered, row.images) == (3, 1, 1)
    for task in others:
        context.studio.submit(project, task, [], seconds=1.0)
    run_rounds(context, label, 1)
    assert context.workspace.rounds()[1].images == 6  # the two late images count from the next round on


def test_images_that_stayed_out_get_pre_annotations_of_the_next_champion(
    context: LoopContext, label: Label
) -> None:
    run_rounds(context, label, 1)
    open_round(context)
    project = context.project()
    first, *others = context.studio.open_tasks(project)
    context.studio.submit(project, first, [], seconds=1.0)
    row = close_round(context, partial=True)
    context.workspace.registry.promote(row.model or "", "by hand, so that the champion changes")
    open_round(context)
    left = {task.key: task for task in context.studio.open_tasks(project) if task.round == 1}
    assert left.keys() == {task.key for task in others}
    for task in left.values():
        context.studio.submit(project, task, task.pre_annotations, seconds=1.0)
    versions = {h.key: h.version for h in context.studio.harvest(project)}
    assert {versions[key] for key in left} == {context.workspace.prediction_version(row.model or "")}


def test_blind_share_is_sent_without_pre_annotations(context: LoopContext, label: Label) -> None:
    settings = context.workspace.settings
    blind = settings.round.model_copy(update={"blind_share": 0.34})
    context.workspace.settings = settings.model_copy(update={"round": blind})
    run_rounds(context, label, 1)
    open_round(context)
    tasks = context.studio.open_tasks(context.project())
    assert sorted(task.prediction_id is None for task in tasks) == [False, False, True]


def test_skipped_images_are_not_trained_on(context: LoopContext, label: Label) -> None:
    open_round(context)
    project = context.project()
    skipped, *_ = context.studio.open_tasks(project)
    context.studio.submit(project, skipped, [], seconds=1.0, skipped=True)
    label(context)
    row = close_round(context)
    assert (row.answered, row.images) == (3, 2)
    version = context.workspace.dataset_version(row.dataset_version or "")
    assert skipped.key not in {item.key for item in version.train}


def test_round_of_skipped_images_stays_open(context: LoopContext) -> None:
    open_round(context)
    project = context.project()
    for task in context.studio.open_tasks(project):
        context.studio.submit(project, task, [], seconds=1.0, skipped=True)
    for _ in range(2):
        with pytest.raises(WorkspaceError):
            close_round(context)
    assert context.workspace.rounds()[0].state == "open"


def test_empty_pool_is_refused_and_no_round_is_started(context: LoopContext, label: Label) -> None:
    run_rounds(context, label, 4)
    with pytest.raises(WorkspaceError):
        open_round(context)
    assert len(context.workspace.rounds()) == 4
    with pytest.raises(WorkspaceError):
        close_round(context)


def test_champion_is_evaluated_again_after_the_class_book_changed(
    context: LoopContext, label: Label, workspace: Workspace
) -> None:
    run_rounds(context, label, 1)
    champion = workspace.champion() or ""
    before = workspace.registry.evaluation(champion)
    open_round(context)
    label(context)
    book = workspace.class_book()
    book.with_description("rust", "an orange-brown block", "person", "someone").save(
        workspace.path / "classes.yaml"
    )
    workspace.class_books.publish(None, author="someone", force_reason="for a test")
    studio = FakeStudio(workspace.path / "studio" / "fake.json")
    row = close_round(replace(context, workspace=Workspace.open(workspace.path), studio=studio))
    after, candidate = (workspace.registry.evaluation(model) for model in (champion, row.model or ""))
    assert before is not None
    assert after is not None
    assert candidate is not None
    assert before.evaluated_on != after.evaluated_on == candidate.evaluated_on


def test_pre_annotations_are_those_of_the_champions_operating_points(
    context: LoopContext, label: Label
) -> None:
    run_rounds(context, label, 1)
    workspace = context.workspace
    champion = workspace.champion() or ""
    points, metrics = workspace.registry.operating_points(champion), workspace.registry.evaluation(champion)
    assert points is not None
    assert metrics is not None
    assert points.evaluated_on == metrics.evaluated_on
    assert points.images == len(workspace.images("test"))
    hidden = points.model_copy(update={"thresholds": {}, "other_classes": 1.0})
    workspace.registry.save_operating_points(champion, hidden)
    open_round(context)
    assert not any(task.pre_annotations for task in context.studio.open_tasks(context.project()))
    assert any(p.detections for p in workspace.predictions().values())
