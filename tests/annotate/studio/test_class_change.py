"""A class book that changes under a project: the fake and a real Label Studio, under the same tests."""

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


def book_of(*names: str, **aliases: str) -> tuple[Vocabulary, Callable[[str], str]]:
    """Classes, and how the class book resolves its aliases."""

    def resolve(name: str) -> str:
        if name not in aliases:
            raise ClassBookError(f"no {name}", "Add it.")
        return aliases[name]

    return Vocabulary(tuple(ClassText(name, "d") for name in names)), resolve


def test_a_renamed_class_is_renamed_in_what_people_drew_and_in_pre_annotations(
    again: Callable[[], Studio],
    title: str,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    book, _ = book_of("open", "spur")
    project = again().ensure_project(title, book)
    found = make_detection((10, 10, 50, 50)), make_detection((100, 10, 150, 50), "spur")
    again().import_tasks(project, [make_task(images(n), *found, rank=i) for i, n in enumerate("abc")])
    first, second, third = again().open_tasks(project)
    hand = Region("hand", Box(200.0, 100.0, 320.0, 200.0), "open", "manual", None)
    again().submit(project, first, [*first.pre_annotations, hand], seconds=1.0)
    again().submit(project, second, [second.pre_annotations[1]], seconds=1.0)
    before = again().harvest(project)
    renamed, resolve = book_of("spur", "Öffnung", "pinhole", open="Öffnung")
    change = again().class_change(title, renamed, resolve=resolve)
    assert (change.added, change.renamed, change.removed) == (
        ("Öffnung", "pinhole"),
        {"open": "Öffnung"},
        (),
    )
    assert (change.annotations, change.pre_annotations) == ({"open": 1}, {"open": 3})
    assert again().harvest(project) == before  # it was only asked
    done: list[tuple[int, int]] = []
    again().ensure_project(title, renamed, resolve=resolve, progress=lambda n, of: done.append((n, of)))
    assert done == [(n, 4) for n in range(1, 5)]
    after = again().harvest(project)
    assert {h.key: h.outcomes for h in after} == {h.key: h.outcomes for h in before}
    drawn = {h.key: [a.label for a in h.annotations] for h in after}
    assert drawn == {first.key: ["Öffnung", "spur", "Öffnung"], second.key: ["spur"]}
    (opened,) = again().open_tasks(project)
    assert [region.label for region in opened.pre_annotations] == ["Öffnung", "spur"]
    assert [r.box for r in opened.pre_annotations] == [r.box for r in third.pre_annotations]
    assert opened.prediction_id == third.prediction_id
    change = again().class_change(title, renamed, resolve=resolve)
    assert (change.added, change.obsolete) == ((), frozenset())
    again().submit(project, opened, opened.pre_annotations, seconds=1.0)


def test_a_removed_class_leaves_the_open_pre_annotations_and_nothing_else(
    again: Callable[[], Studio],
    title: str,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = again().ensure_project(title, book_of("open", "spur")[0])
    found = make_detection((10, 10, 50, 50)), make_detection((100, 10, 150, 50), "spur")
    again().import_tasks(project, [make_task(images(n), *found, rank=i) for i, n in enumerate("ab")])
    answered, _ = again().open_tasks(project)
    again().submit(project, answered, answered.pre_annotations[:1], seconds=1.0)
    smaller, resolve = book_of("open")
    change = again().class_change(title, smaller, resolve=resolve)
    assert (change.removed, change.annotations, change.pre_annotations) == (("spur",), {}, {"spur": 2})
    again().ensure_project(title, smaller, resolve=resolve)
    (opened,) = again().open_tasks(project)
    assert [region.label for region in opened.pre_annotations] == ["open"]
    (got,) = again().harvest(project)
    assert (got.outcomes[Outcome.ACCEPTED], got.outcomes[Outcome.DELETED]) == (1, 1)  # as it was shown


def test_a_refused_change_of_classes_changes_nothing(
    again: Callable[[], Studio],
    title: str,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = again().ensure_project(title, book_of("open", "spur")[0])
    again().import_tasks(project, [make_task(images("a"), make_detection((10, 10, 50, 50)))])
    (task,) = again().open_tasks(project)
    again().submit(project, task, task.pre_annotations, seconds=1.0)
    before = again().harvest(project)
    other, resolve = book_of("Spur", "pinhole", spur="Spur")
    with pytest.raises(
        StudioError, match=r"annotations use the class 'open' \(1\), which the class book has no"
    ):
        again().ensure_project(title, other, resolve=resolve)
    assert again().harvest(project) == before
    change = again().class_change(title, book_of("open", "spur")[0])
    assert (change.added, change.obsolete) == ((), frozenset())


@pytest.mark.parametrize(
    ("kind", "value"),
    [("rectanglelabels", ["open"]), ("keypointlabels", ["open"]), ("brushlabels", ["spur", "open"])],
)
def test_a_label_is_renamed_in_regions_of_every_kind(kind: str, value: list[str]) -> None:
    change = ClassChange(renamed={"open": "gap"})
    results = [{"id": "r", "value": {"x": 1.0, kind: value}}, {"id": "c", "value": {"choices": ["open"]}}]
    after = change.rewrite(results, drop=True)
    assert after is not None
    assert after[0]["value"] == {"x": 1.0, kind: ["gap" if name == "open" else name for name in value]}
    assert after[1] == results[1]  # a choice is no class
    assert change.rewrite(after, drop=True) is None
