"""What every Studio must do: the fake and a real Label Studio, under the same tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from annotate.studio import task_import
from annotate.studio.protocol import OpenTask, Region, Studio, Task
from annotate.studio.simulate import SimulatedAnnotator
from dsmoe_core.errors import BoxError, ClassBookError, StudioError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import (
    Annotation,
    Box,
    ClassText,
    Detection,
    ImageRecord,
    LabelledImage,
    Outcome,
    Vocabulary,
)

MakeImage = Callable[[str], ImageRecord]
MakeTask = Callable[..., Task]
MakeDetection = Callable[..., Detection]


class KilledError(Exception):
    """Stands for the process being killed."""


def box(*corners: float) -> Box:
    return Box(*map(float, corners))


def near(one: Box, other: Box) -> bool:
    return one.corners == pytest.approx(other.corners, abs=1e-6)


def seen(tasks: Sequence[OpenTask]) -> list[str]:
    return [task.key for task in tasks]


def test_a_project_is_made_once_and_takes_new_classes(
    again: Callable[[], Studio], title: str, vocabulary: Vocabulary
) -> None:
    project = again().ensure_project(title, vocabulary)
    larger = replace(vocabulary, classes=(*vocabulary.classes, ClassText("pinhole", "a hole in a trace")))
    assert again().ensure_project(title, larger) == project
    assert again().ensure_project(title, vocabulary) == project
    assert again().ensure_project(f"{title} b", vocabulary) != project


def test_a_project_of_one_workspace_is_no_other_s(
    again: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
) -> None:
    project = again().ensure_project(title, vocabulary, owner="aaaa1111")
    again().import_tasks(project, [make_task(images("a"), bare=True)])
    smaller = Vocabulary(vocabulary.classes[:1])
    for ask in (again().ensure_project, again().class_change):
        with pytest.raises(StudioError, match=f"project {title!r} is another workspace's, aaaa1111"):
            ask(title, smaller, owner="bbbb2222")
    assert not again().class_change(title, vocabulary, owner="aaaa1111").obsolete
    assert again().ensure_project(title, vocabulary, owner="aaaa1111") == project
    assert again().ensure_project(title, vocabulary) == project
    assert again().ensure_project(f"{title} b", vocabulary, owner="bbbb2222") != project


def test_a_project_that_is_nobody_s_becomes_the_first_one_s(
    again: Callable[[], Studio], title: str, vocabulary: Vocabulary
) -> None:
    project = again().ensure_project(title, vocabulary)
    for _ in range(2):
        assert again().ensure_project(title, vocabulary, owner="aaaa1111") == project
    with pytest.raises(StudioError, match="another workspace's"):
        again().ensure_project(title, vocabulary, owner="bbbb2222")


@pytest.mark.parametrize("bad", ["ab", "x" * 51])
def test_a_title_that_does_not_fit_is_refused(studio: Studio, vocabulary: Vocabulary, bad: str) -> None:
    with pytest.raises(StudioError, match=f"{len(bad)} characters; expected 3 to 50"):
        studio.ensure_project(bad, vocabulary)


def test_a_class_in_use_cannot_be_taken_away(
    studio: Studio, title: str, vocabulary: Vocabulary, images: MakeImage, make_task: MakeTask
) -> None:
    project = studio.ensure_project(title, vocabulary)
    studio.import_tasks(project, [make_task(images("a"), bare=True)])
    drawn = Region("hand", box(1, 2, 30, 40), "spur", "manual", None)
    studio.submit(project, studio.open_tasks(project)[0], [drawn], seconds=1.0)
    with pytest.raises(StudioError, match=r"annotations use the class 'spur' \(1\)"):
        studio.ensure_project(title, Vocabulary(vocabulary.classes[:2]))
    assert studio.ensure_project(title, Vocabulary(vocabulary.classes[1:])) == project


def test_pushed_tasks_come_back_most_useful_first_with_their_pre_annotations(
    again: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    studio = again()
    project = studio.ensure_project(title, vocabulary)
    a, b, c, d = (images(name) for name in "abcd")
    found = (
        make_detection((10.25, 20.5, 77.125, 150)),
        make_detection((0, 0, 320, 200), "short circuit", 0.25),
    )
    tasks = [make_task(a, rank=11), make_task(b, *found, rank=2), make_task(c, bare=True, rank=0, round=0)]
    tasks.append(make_task(d, *found, rank=0, round=2))
    sent = studio.import_tasks(project, tasks)
    assert list(sent) == [a.key, b.key, c.key, d.key]
    opened = again().open_tasks(project)
    assert seen(opened) == [c.key, b.key, a.key, d.key]
    bare, shown, empty, _ = opened
    assert [task.task_id for task in opened] == [sent[k] for k in (c.key, b.key, a.key, d.key)]
    assert (shown.round, shown.rank, shown.width, shown.height) == (1, 2, 320, 200)
    assert all(near(r.box, f.box) for r, f in zip(shown.pre_annotations, found, strict=True))
    assert [(r.label, r.score, r.origin) for r in shown.pre_annotations] == [
        ("open", 0.8, "prediction"),
        ("short circuit", 0.25, "prediction"),
    ]
    assert shown.prediction_id is not None
    assert empty.pre_annotations == ()
    assert empty.prediction_id is not None  # the model looked and found nothing
    assert (bare.pre_annotations, bare.prediction_id) == ((), None)


def test_pushing_again_sends_nothing_twice(
    again: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = again().ensure_project(title, vocabulary)
    tasks = [make_task(images(n), make_detection((1, 1, 9, 9)), rank=i) for i, n in enumerate("abc")]
    first = again().import_tasks(project, tasks)
    before = again().open_tasks(project)
    assert again().import_tasks(project, tasks) == first
    assert again().open_tasks(project) == before
    assert len(before) == 3


def test_a_push_killed_half_way_goes_on(
    again: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(task_import, "BATCH", 2)
    project = again().ensure_project(title, vocabulary)
    tasks = [make_task(images(n), make_detection((1, 1, 9, 9)), rank=i) for i, n in enumerate("abcde")]

    def kill_at(moment: int) -> CountCallback:
        def progress(done: int, of: int) -> None:
            assert of == 5
            if done >= moment:
                raise KilledError

        return progress

    for moment in (2, 5):
        with pytest.raises(KilledError):
            again().import_tasks(project, tasks, progress=kill_at(moment))
    again().import_tasks(project, tasks)
    opened = again().open_tasks(project)
    assert seen(opened) == [task.image.key for task in tasks]
    assert all(len(task.pre_annotations) == 1 for task in opened)


def test_a_detection_of_a_class_the_project_lacks_sends_nothing(
    studio: Studio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = studio.ensure_project(title, vocabulary)
    good = make_task(images("good"), make_detection((1, 1, 9, 9)))
    bad = make_task(images("bad"), make_detection((1, 1, 9, 9), "crack"), rank=1)
    with pytest.raises(ClassBookError, match=r"bad\.png has a box of class 'crack'; the project has open"):
        studio.import_tasks(project, [good, bad])
    assert studio.open_tasks(project) == []


def test_a_detection_outside_its_image_sends_nothing(
    studio: Studio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = studio.ensure_project(title, vocabulary)
    with pytest.raises(BoxError, match=r"bad\.png: box .* outside its image of 320 x 200 px"):
        studio.import_tasks(project, [make_task(images("bad"), make_detection((1, 1, 400, 9)))])
    assert studio.open_tasks(project) == []


def test_an_open_task_takes_over_a_new_round_and_an_annotated_one_does_not(
    again: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    studio = again()
    project = studio.ensure_project(title, vocabulary)
    a, b = images("a"), images("b")
    old = [make_task(p, make_detection((1, 1, 9, 9)), rank=i) for i, p in enumerate((a, b))]
    first = studio.import_tasks(project, old)
    studio.submit(project, studio.open_tasks(project)[0], [], seconds=1.0)
    found = make_detection((50, 50, 90, 90), "spur")
    new = [make_task(p, found, rank=5, round=2, version="newer+book") for p in (a, b)]
    assert studio.import_tasks(project, new) == first
    (opened,) = again().open_tasks(project)
    assert (opened.key, opened.round, opened.rank) == (b.key, 2, 5)
    assert [region.label for region in opened.pre_annotations] == ["spur"]
    (harvested,) = again().harvest(project)
    assert (harvested.key, harvested.version) == (a.key, "model+book")


def test_every_outcome_is_counted_by_what_was_done(
    studio: Studio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = studio.ensure_project(title, vocabulary)
    image = images("a")
    found = [make_detection((10 + 40 * i, 10, 33 + 40 * i, 77)) for i in range(5)]
    studio.import_tasks(project, [make_task(image, *found)])
    (task,) = studio.open_tasks(project)
    kept, moved, relabelled, both, _deleted = task.pre_annotations
    regions = [
        kept,
        replace(moved, box=box(60, 20, 80, 70), origin="prediction-changed"),
        replace(relabelled, label="spur", origin="prediction-changed"),
        replace(both, label="spur", box=box(1, 1, 5, 5), origin="prediction-changed"),
        Region("hand", box(200, 100, 320, 200), "short circuit", "manual", None),
    ]
    studio.submit(project, task, regions, seconds=12.5)
    (got,) = studio.harvest(project)
    assert got.key == image.key
    assert got.outcomes == {
        Outcome.ACCEPTED: 1,
        Outcome.MOVED: 1,
        Outcome.RELABELLED: 2,
        Outcome.DELETED: 1,
        Outcome.ADDED: 1,
    }
    assert [a.label for a in got.annotations] == [r.label for r in regions]
    assert all(near(a.box, r.box) for a, r in zip(got.annotations, regions, strict=True))
    assert (got.version, got.seconds, got.skipped) == ("model+book", 12.5, False)
    assert studio.open_tasks(project) == []


def test_submitting_again_changes_nothing(
    again: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = again().ensure_project(title, vocabulary)
    again().import_tasks(project, [make_task(images("a"), make_detection((1, 1, 9, 9)))])
    (task,) = again().open_tasks(project)
    again().submit(project, task, task.pre_annotations, seconds=3.0)
    once = again().harvest(project)
    again().submit(project, task, [], seconds=4.0)
    assert again().harvest(project) == once
    assert len(once) == 1


def test_an_empty_submission_says_no_defect_and_a_skip_says_nothing(
    studio: Studio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = studio.ensure_project(title, vocabulary)
    a, b = images("a"), images("b")
    studio.import_tasks(
        project,
        [make_task(a, make_detection((1, 1, 9, 9))), make_task(b, make_detection((1, 1, 9, 9)), rank=1)],
    )
    clean, skipped = studio.open_tasks(project)
    studio.submit(project, clean, [], seconds=1.0)
    studio.submit(project, skipped, skipped.pre_annotations, seconds=1.0, skipped=True)
    got = {h.key: h for h in studio.harvest(project)}
    assert (got[a.key].skipped, got[a.key].annotations, got[a.key].outcomes[Outcome.DELETED]) == (
        False,
        (),
        1,
    )
    assert (got[b.key].skipped, got[b.key].annotations) == (True, ())
    assert set(got[b.key].outcomes.values()) == {0}
    assert studio.open_tasks(project) == []


def test_a_submission_is_checked(
    studio: Studio, title: str, vocabulary: Vocabulary, images: MakeImage, make_task: MakeTask
) -> None:
    project = studio.ensure_project(title, vocabulary)
    studio.import_tasks(project, [make_task(images("a"), bare=True)])
    (task,) = studio.open_tasks(project)
    with pytest.raises(ClassBookError, match=f"task {task.task_id} has a box of class 'crack'"):
        studio.submit(project, task, [Region("x", box(1, 1, 9, 9), "crack", "manual", None)], seconds=1.0)
    with pytest.raises(BoxError, match="outside its image"):
        studio.submit(project, task, [Region("x", box(1, 1, 9, 999), "spur", "manual", None)], seconds=1.0)
    with pytest.raises(StudioError):
        studio.submit(project, replace(task, task_id=10**6), [], seconds=1.0)
    assert studio.open_tasks(project) == [task]


def test_a_project_that_is_not_there_is_named(studio: Studio, images: MakeImage, make_task: MakeTask) -> None:
    for call in (
        lambda: studio.open_tasks(10**6),
        lambda: studio.harvest(10**6),
        lambda: studio.import_tasks(10**6, [make_task(images("a"), bare=True)]),
    ):
        with pytest.raises(StudioError, match="1000000"):
            call()


def test_harvest_gives_what_changed_since(
    studio: Studio, title: str, vocabulary: Vocabulary, images: MakeImage, make_task: MakeTask
) -> None:
    project = studio.ensure_project(title, vocabulary)
    studio.import_tasks(project, [make_task(images(n), bare=True, rank=i) for i, n in enumerate("ab")])
    first, second = studio.open_tasks(project)
    studio.submit(project, first, [], seconds=1.0)
    (one,) = studio.harvest(project)
    assert one.version is None
    studio.submit(project, second, [], seconds=1.0)
    assert seen_keys(studio, project, since=one.updated_at) == [first.key, second.key]
    assert seen_keys(studio, project, since=one.updated_at + timedelta(microseconds=1)) == [second.key]
    assert seen_keys(studio, project, since=one.updated_at + timedelta(days=1)) == []


def seen_keys(studio: Studio, project: int, **since: object) -> list[str]:
    return [h.key for h in studio.harvest(project, **since)]  # type: ignore[arg-type]


def test_a_simulated_annotator_killed_half_way_goes_on_and_leaves_the_truth(
    again: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = again().ensure_project(title, vocabulary)
    drawn = [images(name) for name in "abcde"]
    right, wrong = make_detection((10, 10, 50, 50)), make_detection((100, 100, 150, 150), "spur")
    again().import_tasks(project, [make_task(p, right, wrong, rank=i) for i, p in enumerate(drawn)])
    annotations = (Annotation(box(11, 11, 51, 51), "open"), Annotation(box(200, 50, 260, 90), "spur"))
    truth = {p.key: LabelledImage(p, annotations) for p in drawn[:4]}

    def kill(done: int, of: int) -> None:
        assert of == 4
        if done == 2:
            raise KilledError

    with pytest.raises(KilledError):
        SimulatedAnnotator(again(), truth).run(project, kill)
    assert SimulatedAnnotator(again(), truth).run(project) == 2
    assert SimulatedAnnotator(again(), truth).run(project) == 0
    got = again().harvest(project)
    assert sorted(h.key for h in got) == sorted(truth)
    expected = dict.fromkeys(Outcome, 0) | {Outcome.ACCEPTED: 1, Outcome.DELETED: 1, Outcome.ADDED: 1}
    assert all(h.outcomes == expected for h in got)
    assert seen(again().open_tasks(project)) == [drawn[4].key]  # nobody knows its truth: left to people
