"""The steps that open a round, against the fake Label Studio and the stub detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotate.studio.fake import FakeStudio
from dsmoe_core.errors import SettingsError, WorkspaceError
from dsmoe_core.schema import Arm, ImageRecord, Prediction, Vocabulary
from dsmoe_core.uncertainty import image_uncertainty
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.acquisition import ACQUISITION_FUNCTIONS
from pipelines.rounds.acquisition.function import Candidates
from pipelines.rounds.acquisition.limits import Refusal
from pipelines.rounds.acquisition.uniform import uniform_scores
from pipelines.rounds.context import LoopContext
from pipelines.rounds.dispatch import PlannedTasks, choose, push, shows_champion
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.pool import pool
from pipelines.rounds.watch import bring_up_to_date
from pipelines.workspace.journal import SentTask
from pipelines.workspace.workspace import Workspace

Label = Callable[[LoopContext], None]


class CountingDetector(StubDetector):
    """Records the images that it predicts on."""

    def __init__(self) -> None:
        self.predicted: list[str] = []

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        for prediction in super().predict(model, vocabulary, images):
            self.predicted.append(prediction.key)
            yield prediction


def with_acquisition(context: LoopContext, name: str, **changes: object) -> None:
    settings = context.workspace.settings
    round_settings = settings.round.model_copy(update={"acquisition": name, **changes})
    context.workspace.settings = settings.model_copy(update={"round": round_settings})


@pytest.fixture
def trained(context: LoopContext, label: Label) -> LoopContext:
    """A context whose workspace has a champion, with a detector that records its predictions."""
    open_round(context)
    label(context)
    close_round(context)
    return replace(context, detector=CountingDetector())


def start(context: LoopContext) -> int:
    """Start the next round in the journal; returns its number."""
    workspace = context.workspace
    number = len(workspace.journal.rounds())
    workspace.journal.start_round(number, workspace.champion(), workspace.class_book().version)
    return number


def test_seed_round_has_no_scores(context: LoopContext) -> None:
    number = start(context)
    choose(context, context.workspace.journal.rounds()[number])
    tasks = context.workspace.journal.tasks(number)
    assert len(tasks) == context.workspace.settings.round.budget
    assert {(t.arm, t.acquisition, t.score, t.version) for t in tasks} == {(Arm.SEED, None, None, None)}


def test_choose_ranks_by_the_acquisition_function_of_the_settings(trained: LoopContext) -> None:
    workspace, unlabelled = trained.workspace, pool(trained.workspace)
    with_acquisition(trained, "entropy")
    number = start(trained)
    assert choose(trained, workspace.journal.rounds()[number]) == {"images": 3, "pool": 9}
    tasks, predictions = workspace.journal.tasks(number), workspace.predictions()
    assert {t.acquisition for t in tasks} == {"entropy"}
    assert [t.score for t in tasks] == [image_uncertainty(predictions[t.key].detections) for t in tasks]
    highest = max(image_uncertainty(predictions[key].detections) for key in unlabelled)
    assert tasks[0].score == highest
    assert {t.version for t in tasks} == {workspace.prediction_version(workspace.champion() or "")}


def test_choose_again_after_a_kill_keeps_the_selection(trained: LoopContext) -> None:
    number = start(trained)
    record = trained.workspace.journal.rounds()[number]
    choose(trained, record)
    tasks = trained.workspace.journal.tasks(number)
    with_acquisition(trained, "random")
    choose(trained, record)
    assert trained.workspace.journal.tasks(number) == tasks


def test_scores_of_two_acquisition_functions_are_never_mixed(trained: LoopContext) -> None:
    """The champion and its stored predictions are the same in both rounds; only the function changes."""
    workspace = trained.workspace
    champion = workspace.champion()
    first = open_round(trained)
    entropy = {t.key: t.score for t in workspace.journal.tasks(first.round)}
    workspace.journal.finish_round(first.round, {})  # closed without a new champion
    with_acquisition(trained, "random")
    candidates = list(pool(workspace))
    second = open_round(trained)
    tasks = workspace.journal.tasks(second.round)
    assert workspace.champion() == champion
    assert {t.acquisition for t in tasks} == {"random"}
    seed = workspace.settings.seed + 1000 * second.round
    uniform = uniform_scores(Candidates(candidates, lambda: iter(()), seed))
    assert {t.key: t.score for t in tasks} == {t.key: uniform[t.key] for t in tasks}
    assert max(uniform.values()) in {t.score for t in tasks if t.arm == Arm.RANKED}
    assert {t.key: t.score for t in workspace.journal.tasks(first.round)} == entropy


def test_stored_predictions_are_not_made_again(trained: LoopContext) -> None:
    detector = trained.detector
    assert isinstance(detector, CountingDetector)
    open_round(trained)
    assert sorted(detector.predicted) == sorted(set(detector.predicted))
    assert len(detector.predicted) == 9
    with_acquisition(trained, "random")
    trained.workspace.journal.finish_round(1, {})
    open_round(trained)
    assert len(detector.predicted) == 9


def test_random_acquisition_predicts_on_the_selected_images_only(trained: LoopContext) -> None:
    detector = trained.detector
    assert isinstance(detector, CountingDetector)
    with_acquisition(trained, "random")
    open_round(trained)
    assert sorted(detector.predicted) == sorted(t.key for t in trained.workspace.journal.tasks(1))


def test_candidates_limit_the_images_that_are_ranked(trained: LoopContext) -> None:
    detector = trained.detector
    assert isinstance(detector, CountingDetector)
    with_acquisition(trained, "entropy", candidates=4)
    open_round(trained)
    assert len(detector.predicted) == 4


def test_unknown_acquisition_function_is_refused_before_a_round_is_started(context: LoopContext) -> None:
    with_acquisition(context, "guess")
    with pytest.raises(SettingsError, match="'guess'"):
        open_round(context)
    assert context.workspace.journal.rounds() == []


def test_push_sends_each_image_once_with_its_pre_annotations(trained: LoopContext) -> None:
    number = start(trained)
    choose(trained, trained.workspace.journal.rounds()[number])
    assert push(trained, number) == push(trained, number) == {"tasks": 3}
    sent = trained.studio.open_tasks(trained.project())
    assert [t.key for t in sent] == [t.key for t in trained.workspace.journal.tasks(number)]
    ids = {t.key: t.task_id for t in trained.workspace.journal.tasks(number)}
    assert ids == {t.key: t.task_id for t in sent}
    assert any(t.pre_annotations for t in sent)


def test_images_that_came_back_are_not_sent_again(context: LoopContext, label: Label) -> None:
    open_round(context)
    label(context)
    project = context.project()
    context.workspace.journal.record_harvests(context.studio.harvest(project))
    assert push(context, 0) == {"tasks": 0}


def test_task_without_version_is_shown_without_pre_annotations(trained: LoopContext) -> None:
    workspace: Workspace = trained.workspace
    number = start(trained)
    choose(trained, workspace.journal.rounds()[number])
    normal, *others = workspace.journal.tasks(number)
    blind = SentTask(others[0].key, number, Arm.RANKED, 1, "entropy", 0.1, version=None)
    first, second = PlannedTasks(workspace, [normal, blind])[:2]
    assert first.prediction is not None
    assert second.prediction is None
    assert (second.image.key, second.arm, second.rank) == (blind.key, Arm.RANKED, 1)


class EmbeddingDetector(CountingDetector):
    """Gives every image an embedding; those of ``opposite`` images point away from the others."""

    opposite: frozenset[str] = frozenset()

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        for prediction in super().predict(model, vocabulary, images):
            number = int(prediction.key[:6], 16)
            vector = np.abs(np.random.default_rng(number).normal(size=8)).astype(np.float32)
            sign = -1 if prediction.key in self.opposite else 1
            yield replace(prediction, embedding=sign * vector)


def with_embeddings(context: LoopContext) -> tuple[LoopContext, EmbeddingDetector]:
    """The context with a detector that makes embeddings, without what the stub left in the store."""
    detector = EmbeddingDetector()
    version = context.workspace.prediction_version(context.workspace.champion() or "")
    context.workspace.embedding_store.path(version).unlink()
    return replace(context, detector=detector), detector


def test_embeddings_are_stored_with_the_predictions(trained: LoopContext) -> None:
    context, _ = with_embeddings(trained)
    workspace, champion = context.workspace, context.workspace.champion() or ""
    images = list(pool(workspace).values())
    vectors = context.embeddings(champion, images)
    assert vectors.shape == (9, 8)
    assert np.linalg.norm(vectors.astype(np.float32), axis=1) == pytest.approx(np.ones(9), abs=0.01)
    assert trained.embeddings(champion, images).shape == (9, 8)  # stored ones are not made again


def test_lost_embeddings_are_made_again(trained: LoopContext) -> None:
    context, detector = with_embeddings(trained)
    workspace, champion = context.workspace, context.workspace.champion() or ""
    images = list(pool(workspace).values())
    vectors = context.embeddings(champion, images)
    path = workspace.embedding_store.path(workspace.prediction_version(champion))
    path.write_bytes(path.read_bytes()[:-5])
    assert (context.embeddings(champion, images) == vectors).all()
    assert len(detector.predicted) == 10


def test_the_stub_makes_no_embeddings(trained: LoopContext) -> None:
    images = list(pool(trained.workspace).values())
    assert trained.embeddings(trained.workspace.champion() or "", images).shape == (0, 0)


def test_every_acquisition_function_opens_a_round(trained: LoopContext) -> None:
    context, _ = with_embeddings(trained)
    workspace = context.workspace
    for number, name in enumerate(ACQUISITION_FUNCTIONS, start=1):
        with_acquisition(context, name, budget=1)
        open_round(context)
        assert [t.acquisition for t in workspace.journal.tasks(number)] == [name]
        workspace.journal.finish_round(number, {})


def show_the_same(images: Sequence[ImageRecord]) -> None:
    """Give all images the pixels of the first one, a little brighter each time.

    The files are replaced and not written to, as they are links to those of other tests.
    """
    pixels = np.asarray(Image.open(images[0].path).convert("RGB")).astype(np.int16)
    for i, image in enumerate(images):
        image.path.unlink()
        Image.fromarray(np.clip(pixels + i, 0, 255).astype(np.uint8)).save(image.path, format="PNG")


def test_images_of_other_pixels_are_sent_although_their_embeddings_are_equal(trained: LoopContext) -> None:
    context, _ = with_embeddings(trained)
    with_acquisition(context, "entropy", duplicate_similarity=1e-6)
    assert open_round(context).sent == 3


def test_near_duplicates_stay_in_the_pool_and_are_counted(trained: LoopContext) -> None:
    """The images of the pool show the same."""
    context, detector = with_embeddings(trained)
    show_the_same(context.workspace.images("pool"))
    detector.opposite = frozenset(image.key for image in context.workspace.images("test"))
    with_acquisition(context, "entropy", duplicate_similarity=1e-6, random_share=0.0)
    round_ = open_round(context)
    chosen = context.workspace.journal.finished(round_.round, "choose")
    assert chosen == {"images": 1, "pool": 9, "left_out": {str(Refusal.DUPLICATE_IN_ROUND): 8}}
    assert len(context.workspace.journal.tasks(round_.round)) == 1


def test_near_duplicates_of_test_images_are_not_sent(trained: LoopContext) -> None:
    context, _ = with_embeddings(trained)
    with_acquisition(context, "entropy", duplicate_similarity=1e-6)
    assert context.workspace.images("test")
    show_the_same([*context.workspace.images("pool"), *context.workspace.images("test")])
    with pytest.raises(WorkspaceError, match="duplicate_similarity"):
        open_round(context)
    with_acquisition(context, "entropy", duplicate_similarity=None)
    assert open_round(context).sent == 3


def test_a_budget_in_boxes_ends_the_selection(trained: LoopContext) -> None:
    with_acquisition(trained, "random", budget=9, budget_boxes=1, random_share=0.0)
    round_ = open_round(trained)
    assert 1 <= len(trained.workspace.journal.tasks(round_.round)) < 9


def test_open_tasks_get_the_predictions_of_a_champion_that_was_put_back(
    context: LoopContext, label: Label
) -> None:
    workspace = context.workspace
    for _ in range(2):
        open_round(context)
        label(context)
        close_round(context)
    first, second = (card.id for card in workspace.registry.cards())
    if workspace.champion() != second:
        workspace.registry.promote(second, "by hand")
    number = open_round(context).round
    assert shows_champion(workspace, number)
    workspace.registry.rollback("worse")
    assert workspace.champion() == first
    assert not shows_champion(workspace, number)
    open_round(context)
    assert shows_champion(workspace, number)
    studio = context.studio
    assert isinstance(studio, FakeStudio)
    shown = [
        task["predictions"][-1]["model_version"] for task in studio._state["tasks"] if task["predictions"]
    ]
    blind = sum(task.version is None for task in workspace.journal.tasks(number))
    assert (
        shown.count(workspace.prediction_version(first)) >= len(workspace.journal.tasks(number)) - blind > 0
    )


def test_loop_sends_the_predictions_of_a_champion_that_was_put_back(
    context: LoopContext, label: Label
) -> None:
    workspace = context.workspace
    for _ in range(2):
        open_round(context)
        label(context)
        close_round(context)
    second = workspace.registry.cards()[-1].id
    if workspace.champion() != second:
        workspace.registry.promote(second, "by hand")
    number = open_round(context).round
    workspace.registry.rollback("worse")
    bring_up_to_date(context)
    assert shows_champion(workspace, number)
