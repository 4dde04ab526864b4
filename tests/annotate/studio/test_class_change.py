"""Tests of changing the classes of a project, with the fake and a real Label Studio."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from annotate.studio.class_change import ClassChange
from annotate.studio.protocol import Region, Studio, Task
from dsmoe_core.errors import ClassBookError, StudioError
from dsmoe_core.schema import Box, ClassText, Detection, ImageRecord, Outcome, Vocabulary

MakeImage = Callable[[str], ImageRecord]
MakeTask = Callable[..., Task]
MakeDetection = Callable[..., Detection]


def class_book(*names: str, **aliases: str) -> tuple[Vocabulary, Callable[[str], str]]:
    """A vocabulary, and the function that resolves its aliases."""

    def resolve(name: str) -> str:
        if name not in aliases:
            raise ClassBookError(f"unknown class {name}", "Add it.")
        return aliases[name]

    return Vocabulary(tuple(ClassText(name, "d") for name in names)), resolve


def test_renamed_class_is_renamed_in_annotations_and_pre_annotations(
    new_client: Callable[[], Studio],
    title: str,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    vocabulary, _ = class_book("open", "spur")
    project = new_client().ensure_project(title, vocabulary)
    detections = make_detection((10, 10, 50, 50)), make_detection((100, 10, 150, 50), "spur")
    new_client().import_tasks(
        project, [make_task(images(n), *detections, rank=i) for i, n in enumerate("abc")]
    )
    first, second, third = new_client().open_tasks(project)
    manual = Region("manual", Box(200.0, 100.0, 320.0, 200.0), "open", "manual", None)
    new_client().submit(project, first, [*first.pre_annotations, manual], seconds=1.0)
    new_client().submit(project, second, [second.pre_annotations[1]], seconds=1.0)
    before = new_client().harvest(project)
    renamed, resolve = class_book("spur", "Öffnung", "pinhole", open="Öffnung")
    change = new_client().class_change(title, renamed, resolve=resolve)
    assert (change.added, change.renamed, change.removed) == (
        ("Öffnung", "pinhole"),
        {"open": "Öffnung"},
        (),
    )
    assert (change.annotations, change.pre_annotations) == ({"open": 1}, {"open": 3})
    assert new_client().harvest(project) == before  # class_change changes nothing
    steps: list[tuple[int, int]] = []
    new_client().ensure_project(
        title, renamed, resolve=resolve, progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(n, 4) for n in range(1, 5)]
    after = new_client().harvest(project)
    assert {h.key: h.outcomes for h in after} == {h.key: h.outcomes for h in before}
    labels = {h.key: [a.label for a in h.annotations] for h in after}
    assert labels == {first.key: ["Öffnung", "spur", "Öffnung"], second.key: ["spur"]}
    (task,) = new_client().open_tasks(project)
    assert [region.label for region in task.pre_annotations] == ["Öffnung", "spur"]
    assert [r.box for r in task.pre_annotations] == [r.box for r in third.pre_annotations]
    assert task.prediction_id == third.prediction_id
    change = new_client().class_change(title, renamed, resolve=resolve)
    assert (change.added, change.obsolete) == ((), frozenset())
    new_client().submit(project, task, task.pre_annotations, seconds=1.0)


def test_removed_class_is_deleted_from_pre_annotations_of_open_tasks_only(
    new_client: Callable[[], Studio],
    title: str,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = new_client().ensure_project(title, class_book("open", "spur")[0])
    detections = make_detection((10, 10, 50, 50)), make_detection((100, 10, 150, 50), "spur")
    new_client().import_tasks(
        project, [make_task(images(n), *detections, rank=i) for i, n in enumerate("ab")]
    )
    annotated, _ = new_client().open_tasks(project)
    new_client().submit(project, annotated, annotated.pre_annotations[:1], seconds=1.0)
    smaller, resolve = class_book("open")
    change = new_client().class_change(title, smaller, resolve=resolve)
    assert (change.removed, change.annotations, change.pre_annotations) == (("spur",), {}, {"spur": 2})
    new_client().ensure_project(title, smaller, resolve=resolve)
    (task,) = new_client().open_tasks(project)
    assert [region.label for region in task.pre_annotations] == ["open"]
    (harvest,) = new_client().harvest(project)
    assert (harvest.outcomes[Outcome.ACCEPTED], harvest.outcomes[Outcome.DELETED]) == (
        1,
        1,
    )  # the record of what was shown stays


def test_refused_class_change_changes_nothing(
    new_client: Callable[[], Studio],
    title: str,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = new_client().ensure_project(title, class_book("open", "spur")[0])
    new_client().import_tasks(project, [make_task(images("a"), make_detection((10, 10, 50, 50)))])
    (task,) = new_client().open_tasks(project)
    new_client().submit(project, task, task.pre_annotations, seconds=1.0)
    before = new_client().harvest(project)
    wanted, resolve = class_book("Spur", "pinhole", spur="Spur")
    with pytest.raises(StudioError, match=r"'open' \(1\)"):
        new_client().ensure_project(title, wanted, resolve=resolve)
    assert new_client().harvest(project) == before
    change = new_client().class_change(title, class_book("open", "spur")[0])
    assert (change.added, change.obsolete) == ((), frozenset())


@pytest.mark.parametrize(
    ("kind", "value"),
    [("rectanglelabels", ["open"]), ("keypointlabels", ["open"]), ("brushlabels", ["spur", "open"])],
)
def test_class_is_renamed_in_regions_of_every_type(kind: str, value: list[str]) -> None:
    change = ClassChange(renamed={"open": "gap"})
    results = [{"id": "r", "value": {"x": 1.0, kind: value}}, {"id": "c", "value": {"choices": ["open"]}}]
    after = change.rewrite(results, drop=True)
    assert after is not None
    assert after[0]["value"] == {"x": 1.0, kind: ["gap" if name == "open" else name for name in value]}
    assert after[1] == results[1]  # a choice is not a class
    assert change.rewrite(after, drop=True) is None
