"""Data sets as lessons: train.json and val.json in COCO format beside images/, read where they lie."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dsmoe_core.data import coco
from dsmoe_core.data.external_images import read_external_images
from dsmoe_core.errors import DataError, SettingsError
from dsmoe_core.schema import LabelledImage
from pipelines.benchmarks.comparison.protocol import Lesson
from pipelines.progress import ProgressReporter
from pipelines.settings import MAX_PIXELS
from prompts.glossary import glossary_book


@contextmanager
def read(data: Path, progress: ProgressReporter) -> Iterator[Lesson]:
    """A data set's lesson; within the block its images can be read.

    Raises:
        DataError: no image can be read, one cannot be, or nothing is labelled in a part.
        FormatError: a file is missing, or no COCO file.
    """
    known = {part: coco.read(data / f"{part}.json") for part in ("train", "val")}
    names = list(dict.fromkeys(name for part in known.values() for name in part.classes))
    with TemporaryDirectory(prefix="dsmoe-") as scratch:
        parts: dict[str, tuple[LabelledImage, ...]] = {}
        for part, annotations in known.items():
            progress.status(f"{data.resolve().name}: reading {part} images")
            converted = Path(scratch) / part
            converted.mkdir()
            taken = read_external_images(
                annotations, data / "images", converted, max_pixels=MAX_PIXELS, progress=progress.advance
            )
            if taken.skipped:
                first = taken.skipped[0]
                raise DataError(
                    f"{len(taken.skipped)} images of {data / f'{part}.json'} cannot be read, "
                    f"such as {first.name}: {first.reason}",
                    "Mend or remove them; a comparison needs all of them.",
                )
            if not any(one.annotations for one in taken.labelled):
                raise DataError(f"{data / f'{part}.json'} has no box", "Give a labelled set.")
            parts[part] = taken.labelled
        vocabulary = glossary_book(names).vocabulary()
        yield Lesson(data.resolve().name, vocabulary, parts["train"], parts["val"])


@contextmanager
def read_along(
    data: Sequence[Path], along: Sequence[Path], progress: ProgressReporter
) -> Iterator[list[Lesson]]:
    """The lessons of data sets, each of which is learned along with all those of ``along``.

    Raises:
        SettingsError: a set is to be learned along with itself. DataError, FormatError: as :func:`read`.
    """
    if twice := {folder.resolve() for folder in data} & {folder.resolve() for folder in along}:
        raise SettingsError(
            f"{min(twice)} is given as --data and as --with", "Learn a set along with others than itself."
        )
    with ExitStack() as stack:
        others = tuple(stack.enter_context(read(folder, progress)) for folder in along)
        yield [replace(stack.enter_context(read(folder, progress)), along=others) for folder in data]


def with_share(lesson: Lesson, share: float, seed: int) -> Lesson:
    """The same with so much of the training images; a smaller share is a part of a larger one.

    The draw is by seed alone, so that every contestant gets the same images, and at least one with a box.
    """
    if share >= 1:
        return lesson
    order = random.Random(seed).sample(range(len(lesson.train)), len(lesson.train))  # noqa: S311 - no secret
    first = next(place for place, i in enumerate(order) if lesson.train[i].annotations)
    order.insert(0, order.pop(first))
    chosen = sorted(order[: max(1, round(share * len(order)))])
    return replace(lesson, train=tuple(lesson.train[i] for i in chosen), labels=share)
