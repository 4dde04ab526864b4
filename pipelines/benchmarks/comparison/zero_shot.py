"""A class that was never trained on, described in words: is it found, and is it the words that find it?

The training does without one class: its boxes are taken off the training images, its text off the
vocabulary. The images stay, so that its defects become background there, and the detector is taught that
nothing is where they are. That is harder than a defect that is new to the factory, whose images nobody has
seen; leaving the images out would leave a set of another size, and other classes with fewer boxes.

The trained model is then asked in the right words for the class, in its bare name and in random words of the
same length. The other classes keep their right words throughout, so that nothing but these words differs. It
is asked twice: ``beside`` the classes that it was trained on, as one would use it, where all classes share a
hundred detections an image; and ``alone``, where nothing takes a detection away. AP is of the class, on all
validation images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsmoe_core.digest import content_id
from dsmoe_core.errors import DataError
from dsmoe_core.schema import ClassText, LabelledImage, Prediction, Vocabulary
from pipelines.benchmarks.comparison import dataset as lessons
from pipelines.benchmarks.comparison.digests import of_lesson
from pipelines.benchmarks.comparison.dsmoe_model import DsmoeContestant
from pipelines.benchmarks.comparison.protocol import Budget, Lesson
from pipelines.benchmarks.comparison.rows import differences
from pipelines.benchmarks.comparison.run_store import Bouts, Result
from pipelines.benchmarks.comparison.sweep import Report
from prompts.text_controls import TEXT_CONTROLS

ASKED = ("beside", "alone")
SAID = ("right", "name", "random")
Key = tuple[str, str, str]
"""Data set, ``asked``, words."""


def run(
    contestant: DsmoeContestant,
    data: Sequence[Path],
    label: str | None,
    budget: Budget,
    seeds: Sequence[int],
    bouts: Bouts,
    report: Report,
    *,
    along: Sequence[Path] = (),
) -> None:
    """Train without the class, once a seed and data set, and ask for it; report after each training.

    Args:
        label: the class; None for the one with most boxes in each data set.
        along: other data sets to train on along with each.

    Raises:
        DataError: a data set cannot be read, lacks the class, has no other, or another one teaches it.
        SettingsError: a set is to be learned along with itself.
        ModelError: the contestant cannot.
    """
    results: dict[Key, list[Result]] = {}
    held: dict[str, str] = {}
    with lessons.read_along(data, along, bouts.told) as read:
        how = contestant.how(read[0])
        held = {lesson.name: _chosen(lesson, label) for lesson in read}
        for seed in seeds:
            for lesson in read:
                without, asked_for = split(lesson, held[lesson.name])
                bouts.told.line(f"{lesson.name} without {held[lesson.name]}, seed {seed}")
                trained = bouts.fight(contestant, without, budget, seed)
                digest = of_lesson(asked_for)
                for asked in ASKED:
                    for words in SAID:
                        vocabulary = described(lesson.vocabulary, held[lesson.name], words, asked, seed)
                        result = _asked(contestant, trained, vocabulary, asked_for, digest, bouts)
                        results.setdefault((lesson.name, asked, words), []).append(result)
                        figures = f"AP@.5 {result.total['map50']:.3f}, AP@.5:.95 {result.total['map']:.3f}"
                        bouts.told.line(f"  {asked}, {words} words: {figures}")
            report(
                {"held_out_class": _rows(results, held, {"budget": budget.plain, **how})},
                seeds[: seeds.index(seed) + 1],
            )


def split(lesson: Lesson, label: str) -> tuple[Lesson, Lesson]:
    """The lesson without a class, to learn from, and one of this class alone, to be judged on."""
    kept = _texts(lesson.vocabulary, lambda name: name != label)
    only = _texts(lesson.vocabulary, lambda name: name == label)
    train, val = lesson.train, lesson.val
    without = replace(lesson, vocabulary=kept, train=_boxes(train, kept), val=_boxes(val, kept))
    return without, replace(lesson, vocabulary=only, train=(), val=_boxes(val, only))


def described(vocabulary: Vocabulary, label: str, words: str, asked: str, seed: int) -> Vocabulary:
    """What the trained model is asked: this class in these words, beside the others in theirs, or alone."""
    alone = _texts(vocabulary, lambda name: name == label)
    (text,) = TEXT_CONTROLS[words](alone, {}, seed).classes
    classes = tuple(text if one.name == label else one for one in vocabulary.classes)
    return Vocabulary(classes if asked == "beside" else (text,), vocabulary.inner, vocabulary.version)


def _asked(
    contestant: DsmoeContestant,
    trained: Result,
    vocabulary: Vocabulary,
    judged_on: Lesson,
    digest: str,
    bouts: Bouts,
) -> Result:
    """What the class's boxes are found with, judged on them alone.

    Args:
        digest: of the lesson that is judged on, as the training's folder knows nothing of these boxes.
    """
    (label,) = judged_on.vocabulary.names
    images = [one.image for one in judged_on.val]

    def look(folder: Path) -> list[Prediction]:
        found = contestant.look(folder / "model", vocabulary, images, bouts.told)
        return [replace(p, detections=tuple(f for f in p.detections if f.label == label)) for p in found]

    name = f"held-out-{content_id([vocabulary.to_dict(), digest])}"
    return bouts.again(trained, name, look, judged_on)


def _rows(
    results: dict[Key, list[Result]], held: dict[str, str], how: dict[str, Any]
) -> list[dict[str, Any]]:
    """One a data set and way of asking; AP@.5:.95 one a seed, AP@.5 beside it."""
    rows = []
    for name, asked in dict.fromkeys((name, asked) for name, asked, _ in results):
        of = {words: results[name, asked, words] for words in SAID}
        row: dict[str, Any] = {"data": name, "class": held[name], "asked": asked, **how}
        row["seeds"] = [one.seed for one in of["right"]]
        for words, known in of.items():
            row[words] = [round(one.total["map"], 4) for one in known]
            row[f"{words}_map50"] = [round(one.total["map50"], 4) for one in known]
        row["tests"] = [
            {"against": words, **test} for words in SAID[1:] for test in differences(of["right"], of[words])
        ]
        rows.append(row)
    return rows


def _chosen(lesson: Lesson, label: str | None) -> str:
    """The class to hold out.

    Raises:
        DataError: the data set lacks it on one of its parts, or has no other; or another set teaches it.
    """
    boxes, to_find = (
        Counter(a.label for one in part for a in one.annotations) for part in (lesson.train, lesson.val)
    )
    chosen = label or max(to_find, key=lambda name: boxes[name])
    if not boxes[chosen] or not to_find[chosen]:
        known = ", ".join(sorted(to_find))
        raise DataError(
            f"{lesson.name} lacks boxes of {chosen!r} in a part; val.json has {known}", "Name one of these."
        )
    if {chosen} in (set(boxes), set(to_find)):
        raise DataError(f"{lesson.name} has no other class than {chosen!r}", "Give a set of several classes.")
    _refuse_taught(lesson, chosen)
    return chosen


def _refuse_taught(lesson: Lesson, label: str) -> None:
    """A class is known, too, where a set that is learned along has it, under whichever name."""
    text = lesson.vocabulary.classes[lesson.vocabulary.index(label)]
    for other in lesson.along:
        for one in other.vocabulary:
            if one.name == label or (text.description and one.description == text.description):
                raise DataError(
                    f"{other.name} teaches {one.name!r}, which {lesson.name} is to do without",
                    "Hold out another class, or leave that set out of --with.",
                )


def _texts(vocabulary: Vocabulary, wanted: Callable[[str], bool]) -> Vocabulary:
    kept: tuple[ClassText, ...] = tuple(one for one in vocabulary.classes if wanted(one.name))
    return Vocabulary(kept, vocabulary.inner, vocabulary.version)


def _boxes(images: Sequence[LabelledImage], vocabulary: Vocabulary) -> tuple[LabelledImage, ...]:
    """The images with the boxes of these classes; one that has none stays, as one without a defect."""
    kept = set(vocabulary.names)
    return tuple(replace(p, annotations=tuple(a for a in p.annotations if a.label in kept)) for p in images)
