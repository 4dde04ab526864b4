"""Contract tests of Studio, with the fake and a real Label Studio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from annotate.studio import task_import
from annotate.studio.protocol import OpenTask, Region, Studio, Task
from dsmoe_core.errors import BoxError, ClassBookError, StudioError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Box, ClassText, Detection, ImageRecord, Outcome, Vocabulary

MakeImage = Callable[[str], ImageRecord]
MakeTask = Callable[..., Task]
MakeDetection = Callable[..., Detection]


class InterruptionError(Exception):
    """Stands for a process that is killed."""


def box(*corners: float) -> Box:
    return Box(*map(float, corners))


def almost_equal(a: Box, b: Box) -> bool:
    return a.corners == pytest.approx(b.corners, abs=1e-6)


def keys_of(tasks: Sequence[OpenTask]) -> list[str]:
    return [task.key for task in tasks]


def test_project_is_created_once_and_gets_new_classes(
    new_client: Callable[[], Studio], title: str, vocabulary: Vocabulary
) -> None:
    project = new_client().ensure_project(title, vocabulary)
    larger = replace(vocabulary, classes=(*vocabulary.classes, ClassText("pinhole", "a hole in a trace")))
    assert new_client().ensure_project(title, larger) == project
    assert new_client().ensure_project(title, vocabulary) == project
    assert new_client().ensure_project(f"{title} b", vocabulary) != project


def test_project_of_another_workspace_is_refused(
    new_client: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
) -> None:
    project = new_client().ensure_project(title, vocabulary, owner="aaaa1111")
    new_client().import_tasks(project, [make_task(images("a"), bare=True)])
    smaller = Vocabulary(vocabulary.classes[:1])
    for call in (new_client().ensure_project, new_client().class_change):
        with pytest.raises(StudioError, match="aaaa1111"):
            call(title, smaller, owner="bbbb2222")
    assert not new_client().class_change(title, vocabulary, owner="aaaa1111").obsolete
    assert new_client().ensure_project(title, vocabulary, owner="aaaa1111") == project
    assert new_client().ensure_project(title, vocabulary) == project
    assert new_client().ensure_project(f"{title} b", vocabulary, owner="bbbb2222") != project


def test_project_without_owner_gets_the_first_owner(
    new_client: Callable[[], Studio], title: str, vocabulary: Vocabulary
) -> None:
    project = new_client().ensure_project(title, vocabulary)
    for _ in range(2):
        assert new_client().ensure_project(title, vocabulary, owner="aaaa1111") == project
    with pytest.raises(StudioError, match="aaaa1111"):
        new_client().ensure_project(title, vocabulary, owner="bbbb2222")


@pytest.mark.parametrize("bad", ["ab", "x" * 51])
def test_title_of_invalid_length_is_refused(studio: Studio, vocabulary: Vocabulary, bad: str) -> None:
    with pytest.raises(StudioError, match=f"{len(bad)} characters"):
        studio.ensure_project(bad, vocabulary)


def test_class_in_use_cannot_be_removed(
    studio: Studio, title: str, vocabulary: Vocabulary, images: MakeImage, make_task: MakeTask
) -> None:
    project = studio.ensure_project(title, vocabulary)
    studio.import_tasks(project, [make_task(images("a"), bare=True)])
    region = Region("manual", box(1, 2, 30, 40), "spur", "manual", None)
    studio.submit(project, studio.open_tasks(project)[0], [region], seconds=1.0)
    with pytest.raises(StudioError, match=r"'spur' \(1\)"):
        studio.ensure_project(title, Vocabulary(vocabulary.classes[:2]))
    assert studio.ensure_project(title, Vocabulary(vocabulary.classes[1:])) == project


def test_open_tasks_are_sorted_and_have_their_pre_annotations(
    new_client: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    studio = new_client()
    project = studio.ensure_project(title, vocabulary)
    a, b, c, d = (images(name) for name in "abcd")
    detections = (
        make_detection((10.25, 20.5, 77.125, 150)),
        make_detection((0, 0, 320, 200), "short circuit", 0.25),
    )
    tasks = [
        make_task(a, rank=11),
        make_task(b, *detections, rank=2),
        make_task(c, bare=True, rank=0, round=0),
    ]
    tasks.append(make_task(d, *detections, rank=0, round=2))
    sent = studio.import_tasks(project, tasks)
    assert list(sent) == [a.key, b.key, c.key, d.key]
    opened = new_client().open_tasks(project)
    assert keys_of(opened) == [c.key, b.key, a.key, d.key]
    without_prediction, shown, empty, _ = opened
    assert [task.task_id for task in opened] == [sent[k] for k in (c.key, b.key, a.key, d.key)]
    assert (shown.round, shown.rank, shown.width, shown.height) == (1, 2, 320, 200)
    assert all(almost_equal(r.box, d.box) for r, d in zip(shown.pre_annotations, detections, strict=True))
    assert [(r.label, r.score, r.origin) for r in shown.pre_annotations] == [
        ("open", 0.8, "prediction"),
        ("short circuit", 0.25, "prediction"),
    ]
    assert shown.prediction_id is not None
    assert empty.pre_annotations == ()
    assert empty.prediction_id is not None  # a prediction without detections
    assert (without_prediction.pre_annotations, without_prediction.prediction_id) == ((), None)


def test_repeated_import_creates_no_duplicates(
    new_client: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = new_client().ensure_project(title, vocabulary)
    tasks = [make_task(images(n), make_detection((1, 1, 9, 9)), rank=i) for i, n in enumerate("abc")]
    first = new_client().import_tasks(project, tasks)
    before = new_client().open_tasks(project)
    assert new_client().import_tasks(project, tasks) == first
    assert new_client().open_tasks(project) == before
    assert len(before) == 3


def test_interrupted_import_is_completed_by_the_next(
    new_client: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(task_import, "BATCH", 2)
    project = new_client().ensure_project(title, vocabulary)
    tasks = [make_task(images(n), make_detection((1, 1, 9, 9)), rank=i) for i, n in enumerate("abcde")]

    def interrupt_at(count: int) -> CountCallback:
        def progress(done: int, total: int) -> None:
            assert total == 5
            if done >= count:
                raise InterruptionError

        return progress

    for count in (2, 5):
        with pytest.raises(InterruptionError):
            new_client().import_tasks(project, tasks, progress=interrupt_at(count))
    new_client().import_tasks(project, tasks)
    opened = new_client().open_tasks(project)
    assert keys_of(opened) == [task.image.key for task in tasks]
    assert all(len(task.pre_annotations) == 1 for task in opened)


def test_detection_of_an_unknown_class_refuses_the_import(
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
    with pytest.raises(ClassBookError, match=r"bad\.png .* 'crack'"):
        studio.import_tasks(project, [good, bad])
    assert studio.open_tasks(project) == []


def test_detection_outside_its_image_refuses_the_import(
    studio: Studio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = studio.ensure_project(title, vocabulary)
    with pytest.raises(BoxError, match=r"bad\.png: .* 320 x 200 px"):
        studio.import_tasks(project, [make_task(images("bad"), make_detection((1, 1, 400, 9)))])
    assert studio.open_tasks(project) == []


def test_import_updates_open_tasks_only(
    new_client: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    studio = new_client()
    project = studio.ensure_project(title, vocabulary)
    a, b = images("a"), images("b")
    old = [make_task(p, make_detection((1, 1, 9, 9)), rank=i) for i, p in enumerate((a, b))]
    first = studio.import_tasks(project, old)
    studio.submit(project, studio.open_tasks(project)[0], [], seconds=1.0)
    detection = make_detection((50, 50, 90, 90), "spur")
    new = [make_task(p, detection, rank=5, round=2, version="newer+book") for p in (a, b)]
    assert studio.import_tasks(project, new) == first
    (opened,) = new_client().open_tasks(project)
    assert (opened.key, opened.round, opened.rank) == (b.key, 2, 5)
    assert [region.label for region in opened.pre_annotations] == ["spur"]
    (harvested,) = new_client().harvest(project)
    assert (harvested.key, harvested.version) == (a.key, "model+book")


def test_outcomes_are_counted(
    studio: Studio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = studio.ensure_project(title, vocabulary)
    image = images("a")
    detections = [make_detection((10 + 40 * i, 10, 33 + 40 * i, 77)) for i in range(5)]
    studio.import_tasks(project, [make_task(image, *detections)])
    (task,) = studio.open_tasks(project)
    accepted, moved, relabelled, both, _deleted = task.pre_annotations
    regions = [
        accepted,
        replace(moved, box=box(60, 20, 80, 70), origin="prediction-changed"),
        replace(relabelled, label="spur", origin="prediction-changed"),
        replace(both, label="spur", box=box(1, 1, 5, 5), origin="prediction-changed"),
        Region("manual", box(200, 100, 320, 200), "short circuit", "manual", None),
    ]
    studio.submit(project, task, regions, seconds=12.5)
    (harvest,) = studio.harvest(project)
    assert harvest.key == image.key
    assert harvest.outcomes == {
        Outcome.ACCEPTED: 1,
        Outcome.MOVED: 1,
        Outcome.RELABELLED: 2,
        Outcome.DELETED: 1,
        Outcome.ADDED: 1,
    }
    assert [a.label for a in harvest.annotations] == [r.label for r in regions]
    assert all(almost_equal(a.box, r.box) for a, r in zip(harvest.annotations, regions, strict=True))
    assert (harvest.version, harvest.seconds, harvest.skipped) == ("model+book", 12.5, False)
    assert studio.open_tasks(project) == []


def test_second_submission_changes_nothing(
    new_client: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = new_client().ensure_project(title, vocabulary)
    new_client().import_tasks(project, [make_task(images("a"), make_detection((1, 1, 9, 9)))])
    (task,) = new_client().open_tasks(project)
    new_client().submit(project, task, task.pre_annotations, seconds=3.0)
    first = new_client().harvest(project)
    new_client().submit(project, task, [], seconds=4.0)
    assert new_client().harvest(project) == first
    assert len(first) == 1


def test_empty_submission_is_no_defect_and_a_skip_has_no_outcomes(
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
    harvests = {h.key: h for h in studio.harvest(project)}
    assert (
        harvests[a.key].skipped,
        harvests[a.key].annotations,
        harvests[a.key].outcomes[Outcome.DELETED],
    ) == (
        False,
        (),
        1,
    )
    assert (harvests[b.key].skipped, harvests[b.key].annotations) == (True, ())
    assert set(harvests[b.key].outcomes.values()) == {0}
    assert studio.open_tasks(project) == []


def test_submission_is_validated(
    studio: Studio, title: str, vocabulary: Vocabulary, images: MakeImage, make_task: MakeTask
) -> None:
    project = studio.ensure_project(title, vocabulary)
    studio.import_tasks(project, [make_task(images("a"), bare=True)])
    (task,) = studio.open_tasks(project)
    with pytest.raises(ClassBookError, match=f"task {task.task_id} .* 'crack'"):
        studio.submit(project, task, [Region("x", box(1, 1, 9, 9), "crack", "manual", None)], seconds=1.0)
    with pytest.raises(BoxError, match="320 x 200 px"):
        studio.submit(project, task, [Region("x", box(1, 1, 9, 999), "spur", "manual", None)], seconds=1.0)
    with pytest.raises(StudioError):
        studio.submit(project, replace(task, task_id=10**6), [], seconds=1.0)
    assert studio.open_tasks(project) == [task]


def test_label_errors_are_stored_in_annotated_tasks(
    studio: Studio, title: str, vocabulary: Vocabulary, images: MakeImage, make_task: MakeTask
) -> None:
    project = studio.ensure_project(title, vocabulary)
    first, second, still_open = images("a"), images("b"), images("c")
    studio.import_tasks(project, [make_task(i, bare=True) for i in (first, second, still_open)])
    for task in studio.open_tasks(project):
        if task.key != still_open.key:
            studio.submit(project, task, [], seconds=1)
    assert studio.set_label_errors(project, {first.key: 0.9, still_open.key: 0.8}) == 1
    assert studio.set_label_errors(project, {first.key: 0.9, second.key: 0.4}) == 2
    assert studio.set_label_errors(project, {}) == 0
    assert len(studio.harvest(project)) == 2


def test_missing_project_is_named(studio: Studio, images: MakeImage, make_task: MakeTask) -> None:
    for call in (
        lambda: studio.open_tasks(10**6),
        lambda: studio.harvest(10**6),
        lambda: studio.import_tasks(10**6, [make_task(images("a"), bare=True)]),
    ):
        with pytest.raises(StudioError, match="1000000"):
            call()


def test_harvest_is_filtered_by_time(
    studio: Studio, title: str, vocabulary: Vocabulary, images: MakeImage, make_task: MakeTask
) -> None:
    project = studio.ensure_project(title, vocabulary)
    studio.import_tasks(project, [make_task(images(n), bare=True, rank=i) for i, n in enumerate("ab")])
    first, second = studio.open_tasks(project)
    studio.submit(project, first, [], seconds=1.0)
    (harvest,) = studio.harvest(project)
    assert harvest.version is None
    studio.submit(project, second, [], seconds=1.0)
    assert harvested_keys(studio, project, since=harvest.updated_at) == [first.key, second.key]
    assert harvested_keys(studio, project, since=harvest.updated_at + timedelta(microseconds=1)) == [
        second.key
    ]
    assert harvested_keys(studio, project, since=harvest.updated_at + timedelta(days=1)) == []


def harvested_keys(studio: Studio, project: int, **since: object) -> list[str]:
    return [h.key for h in studio.harvest(project, **since)]  # type: ignore[arg-type]
