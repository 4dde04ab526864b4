"""The journey of a picture, uninterrupted: what is sent, taken in, learned, promoted and refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from annotate.studio.fake import FakeStudio
from dsmoe_core.errors import WorkspaceError
from dsmoe_core.schema import Outcome, Picture, PictureFindings, Vocabulary
from pipelines.detectors.stub_detector import StandInDetection
from pipelines.rounds.context import Crew
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.retraining import judge_candidate
from pipelines.workspace.round_summary import sentences
from pipelines.workspace.workspace import Workspace

Label = Callable[[Crew], None]


def play(crew: Crew, label: Label, rounds: int) -> None:
    for _ in range(rounds):
        open_round(crew)
        label(crew)
        close_round(crew)


def test_the_seed_round_is_random_and_bare_and_its_model_becomes_champion(crew: Crew, label: Label) -> None:
    row = open_round(crew)
    assert (row.round, row.state, row.sent, row.answered) == (0, "open", 3, 0)
    assert {task.arm for task in crew.workspace.journal.tasks(0)} == {"seed"}
    tasks = crew.studio.open_tasks(crew.project())
    assert [task.prelabels for task in tasks] == [()] * 3
    label(crew)
    row = close_round(crew)
    assert (row.state, row.promoted, row.model) == ("closed", True, crew.workspace.champion())
    assert row.share(Outcome.ADDED) == 1.0
    assert row.share(Outcome.ACCEPTED) is None
    assert row.pictures == row.new_pictures == 3
    assert 0 < (row.map or 0) <= 1


class Hesitant(StandInDetection):
    """Says nearly nothing aloud."""

    def findings(
        self, model: Path, vocabulary: Vocabulary, pictures: Iterable[Picture]
    ) -> Iterator[PictureFindings]:
        for one in super().findings(model, vocabulary, pictures):
            yield replace(one, findings=tuple(replace(f, score=f.score * 0.04) for f in one.findings))


def test_models_are_judged_by_what_they_find_faintly_too_but_nobody_is_shown_it(
    crew: Crew, label: Label
) -> None:
    play(crew, label, 1)
    usual = crew.workspace.rounds()[0].map or 0
    model = crew.workspace.champion() or ""
    card = crew.workspace.registry.card(model)
    crew.workspace.registry.register(card.model_copy(update={"evaluation": None}))
    crew.workspace.findings_store.path(crew.workspace.version_of(model)).unlink()
    hesitant = replace(crew, detection=Hesitant())
    judge_candidate(hesitant, model)
    scores = crew.workspace.registry.card(model).evaluation
    assert scores is not None
    assert scores.map == usual > 0
    kept = crew.workspace.findings_store.load(crew.workspace.version_of(model))
    assert kept.keys() == {p.key for p in crew.workspace.pictures("test")}
    assert not any(one.findings for one in kept.values())


def test_later_rounds_have_prelabels_most_useful_first_with_a_control_arm(crew: Crew, label: Label) -> None:
    play(crew, label, 1)
    open_round(crew)
    sent = crew.workspace.journal.tasks(1)
    assert sorted(task.arm for task in sent) == ["random", "ranked", "ranked"]
    doubts = [task.uncertainty or 0.0 for task in sent]
    assert doubts == sorted(doubts, reverse=True)
    assert {task.version for task in sent} == {crew.workspace.version_of(crew.workspace.champion() or "")}
    shown = crew.studio.open_tasks(crew.project())
    assert [task.key for task in shown] == [task.key for task in sent]
    assert any(task.prelabels for task in shown)


def test_lineage_runs_from_model_to_data_and_words(crew: Crew, label: Label) -> None:
    play(crew, label, 3)
    workspace = crew.workspace
    rows = workspace.rounds()
    assert [row.pictures for row in rows] == [3, 6, 9]
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
    test_keys = {p.key for p in workspace.pictures("test")}
    assert not test_keys & {task.key for task in workspace.journal.tasks()}
    assert not test_keys & {item.key for item in versions[-1].train}


def test_a_candidate_that_is_no_better_is_refused_and_the_table_says_why(crew: Crew, label: Label) -> None:
    play(crew, label, 4)
    rows = crew.workspace.rounds()
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
    assert len(sentences(rows)) == refused
    assert f"round {best.round}'s model stays champion" in sentences(rows)[-1]


def test_a_champion_turned_by_hand_while_people_label_is_the_parent_and_the_measure(
    crew: Crew, label: Label
) -> None:
    play(crew, label, 1)
    registry, first = crew.workspace.registry, crew.workspace.champion() or ""
    open_round(crew)
    shutil.copytree(registry.folder(first), registry.folder("by-hand"))
    card = registry.card(first)
    assert card.evaluation is not None
    perfect = card.evaluation.model_copy(update={"map": 1.0})
    registry.register(card.model_copy(update={"id": "by-hand", "evaluation": perfect}))
    registry.promote("by-hand", "it is perfect")
    label(crew)
    row = close_round(crew)
    assert registry.card(row.model or "").parent == "by-hand"
    assert row.reason == f"refused: mAP {row.map:.3f} is not above the champion's 1.000"
    assert crew.workspace.champion() == "by-hand"


def test_a_round_closes_only_when_all_came_back_or_when_told_so(
    crew: Crew, label: Label, blocks: Path
) -> None:
    open_round(crew)
    project = crew.project()
    first, *others = crew.studio.open_tasks(project)
    crew.studio.submit(project, first, [], seconds=1.0)
    with pytest.raises(WorkspaceError, match="2 of 3 pictures of round 0 are not annotated yet"):
        close_round(crew)
    assert crew.workspace.rounds()[0].answered == 1
    row = close_round(crew, partial=True)
    assert (row.sent, row.answered, row.pictures) == (3, 1, 1)
    for task in others:
        crew.studio.submit(project, task, [], seconds=1.0)
    play(crew, label, 1)
    assert crew.workspace.rounds()[1].pictures == 6  # the two latecomers count from now on


def test_pictures_that_stayed_out_are_shown_what_the_next_model_finds(crew: Crew, label: Label) -> None:
    play(crew, label, 1)
    open_round(crew)
    project = crew.project()
    first, *others = crew.studio.open_tasks(project)
    crew.studio.submit(project, first, [], seconds=1.0)
    row = close_round(crew, partial=True)
    crew.workspace.registry.promote(row.model or "", "by hand, so that the champion is another one")
    open_round(crew)
    left = {task.key: task for task in crew.studio.open_tasks(project) if task.round == 1}
    assert left.keys() == {task.key for task in others}
    for task in left.values():
        crew.studio.submit(project, task, task.prelabels, seconds=1.0)
    shown = {h.key: h.version for h in crew.studio.harvest(project)}
    assert {shown[key] for key in left} == {crew.workspace.version_of(row.model or "")}


def test_a_blind_share_is_sent_without_prelabels(crew: Crew, label: Label) -> None:
    settings = crew.workspace.settings
    blind = settings.round.model_copy(update={"blind_share": 0.34})
    crew.workspace.settings = settings.model_copy(update={"round": blind})
    play(crew, label, 1)
    open_round(crew)
    tasks = crew.studio.open_tasks(crew.project())
    assert sorted(task.prediction_id is None for task in tasks) == [False, False, True]


def test_skipped_pictures_teach_nothing(crew: Crew, label: Label) -> None:
    open_round(crew)
    project = crew.project()
    skipped, *_ = crew.studio.open_tasks(project)
    crew.studio.submit(project, skipped, [], seconds=1.0, skipped=True)
    label(crew)
    row = close_round(crew)
    assert (row.answered, row.pictures) == (3, 2)
    version = crew.workspace.dataset_version(row.dataset_version or "")
    assert skipped.key not in {item.key for item in version.train}


def test_a_round_of_skipped_pictures_waits_for_one_that_is_not(crew: Crew) -> None:
    open_round(crew)
    project = crew.project()
    for task in crew.studio.open_tasks(project):
        crew.studio.submit(project, task, [], seconds=1.0, skipped=True)
    for _ in range(2):
        with pytest.raises(WorkspaceError, match="all were skipped"):
            close_round(crew)
    assert crew.workspace.rounds()[0].state == "open"


def test_an_exhausted_pool_is_said_and_leaves_no_round_behind(crew: Crew, label: Label) -> None:
    play(crew, label, 4)
    with pytest.raises(WorkspaceError, match="no picture is left in the pool"):
        open_round(crew)
    assert len(crew.workspace.rounds()) == 4
    with pytest.raises(WorkspaceError, match="no round is open"):
        close_round(crew)


def test_a_class_book_that_changed_judges_the_champion_anew(
    crew: Crew, label: Label, workspace: Workspace
) -> None:
    play(crew, label, 1)
    champion = workspace.champion() or ""
    before = workspace.registry.card(champion).evaluation
    open_round(crew)
    label(crew)
    book = workspace.class_book()
    book.with_description("rust", "an orange-brown block", "person", "someone").save(
        workspace.path / "classes.yaml"
    )
    workspace.class_books.publish(None, author="someone", force_reason="for a test")
    changed = replace(crew, workspace=Workspace.open(workspace.path))
    changed = replace(changed, studio=FakeStudio(workspace.path / "studio" / "fake.json"))
    row = close_round(changed)
    after = workspace.registry.card(champion).evaluation
    assert before is not None
    assert after is not None
    assert before.judged_on != after.judged_on
    assert after.judged_on == workspace.registry.card(row.model or "").evaluation.judged_on  # type: ignore[union-attr]
