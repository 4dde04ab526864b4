"""Loads COCO data sets for a comparison; the images stay where they are."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from dsmoe_core.data import coco
from dsmoe_core.data.external_images import read_external_images
from dsmoe_core.errors import DataError, SettingsError
from dsmoe_core.schema import ClassText, LabelledImage, Vocabulary
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset
from pipelines.evaluation.report.groups import group_names
from pipelines.progress import ProgressReporter
from pipelines.settings.workspace import MAX_PIXELS
from prompts.glossary import glossary_book

INNER_SEED = 42
"""Of the inner split; the same for all models and all seeds of a training."""


@contextmanager
def load_dataset(data: Path, progress: ProgressReporter) -> Iterator[BenchmarkDataset]:
    """Load a data set; its images can be read within the ``with`` block.

    Args:
        data: folder with train.json and val.json in COCO format and images/.

    Raises:
        DataError: an image cannot be read, or a part has no box.
        FormatError: a file is missing or not in COCO format.
    """
    parts = {part: coco.read(data / f"{part}.json") for part in ("train", "val")}
    class_names = list(dict.fromkeys(name for part in parts.values() for name in part.classes))
    with TemporaryDirectory(prefix="dsmoe-") as scratch:
        labelled: dict[str, tuple[LabelledImage, ...]] = {}
        intensity_max: int | None = None  # of the training images, for both parts
        for part, annotations in parts.items():
            progress.status(f"{data.resolve().name}: reading {part} images")
            converted = Path(scratch) / part
            converted.mkdir()
            images = read_external_images(
                annotations,
                data / "images",
                converted,
                max_pixels=MAX_PIXELS,
                intensity_max=intensity_max,
                progress=progress.advance,
            )
            intensity_max = images.scale.intensity_max if images.scale else intensity_max
            if images.skipped:
                first = images.skipped[0]
                raise DataError(
                    f"{len(images.skipped)} images of {data / f'{part}.json'} cannot be read, "
                    f"such as {first.name}: {first.reason}",
                    "Repair or remove them; a comparison needs all images.",
                )
            if not any(image.annotations for image in images.labelled):
                raise DataError(f"{data / f'{part}.json'} has no box", "Give a labelled data set.")
            labelled[part] = images.labelled
        vocabulary = glossary_book(class_names).vocabulary()
        yield BenchmarkDataset(data.resolve().name, vocabulary, labelled["train"], labelled["val"])


@contextmanager
def load_datasets(
    data: Sequence[Path], extra: Sequence[Path], progress: ProgressReporter
) -> Iterator[list[BenchmarkDataset]]:
    """Load data sets, each with all of ``extra`` as extra training sets.

    Raises:
        SettingsError: a folder is in both lists.
        DataError, FormatError: as :func:`load_dataset`.
    """
    if repeated := {folder.resolve() for folder in data} & {folder.resolve() for folder in extra}:
        raise SettingsError(
            f"{min(repeated)} is given as --data and as --with",
            "Pass different folders to --data and --with.",
        )
    with ExitStack() as stack:
        extra_sets = tuple(stack.enter_context(load_dataset(folder, progress)) for folder in extra)
        yield [
            replace(stack.enter_context(load_dataset(folder, progress)), extra_sets=extra_sets)
            for folder in data
        ]


def with_train_share(dataset: BenchmarkDataset, share: float, seed: int) -> BenchmarkDataset:
    """The data set with a random share of its training images, at least one of them with a box.

    The sample depends on the seed alone, so all models get the same images, and a smaller share is a subset
    of a larger one.
    """
    if share >= 1:
        return dataset
    return _sampled(dataset, max(1, round(share * len(dataset.train))), share, seed)


def with_train_images(dataset: BenchmarkDataset, count: int, seed: int) -> BenchmarkDataset:
    """The data set with a random sample of this many training images; see :func:`with_train_share`.

    Raises:
        SettingsError: there are fewer images.
    """
    total = len(dataset.train)
    if count > total:
        raise SettingsError(
            f"{count} labelled images of {dataset.name} are wanted, and its train.json has {total}",
            f"Give numbers of at most {total}.",
        )
    return dataset if count == total else _sampled(dataset, count, round(count / total, 4), seed)


def _sampled(dataset: BenchmarkDataset, count: int, share: float, seed: int) -> BenchmarkDataset:
    order = random.Random(seed).sample(range(len(dataset.train)), len(dataset.train))  # noqa: S311 - no secret
    first_labelled = next(place for place, i in enumerate(order) if dataset.train[i].annotations)
    order.insert(0, order.pop(first_labelled))
    sampled = sorted(order[:count])
    return replace(dataset, train=tuple(dataset.train[i] for i in sampled), train_share=share)


class InnerSplit(NamedTuple):
    """A part of train.json on which settings and models are selected, so that val.json is not used for it.

    Attributes:
        share: of the training images, in (0, 1).
        by: part of the file names that images of one group share; whole groups are cut off. None: every image
            is a group of its own.
    """

    share: float = 0.2
    by: re.Pattern[str] | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """For result files."""
        return {"share": self.share, "by": self.by and self.by.pattern}

    def cut(self, dataset: BenchmarkDataset) -> BenchmarkDataset:
        """The data set with the inner split as ``val`` and the other training images as ``train``.

        Groups are taken in random order while they fit into the share; if none fits, the smallest is taken.
        The order depends on the names of the groups alone, so all models get the same split.

        Raises:
            DataError: there are fewer than two groups, or a part has no box.
        """
        numbers = [str(number) for number in range(len(dataset.train))]
        names = numbers if self.by is None else group_names(self.by, dataset.train)
        sizes = Counter(names)
        order = sorted(sizes)
        random.Random(INNER_SEED).shuffle(order)  # noqa: S311 - no secret
        room, inner = round(self.share * len(names)), set[str]()
        for name in order:
            if sizes[name] <= room:
                inner.add(name)
                room -= sizes[name]
        inner = inner or {min(order, key=lambda name: sizes[name])}
        parts = [
            tuple(image for image, name in zip(dataset.train, names, strict=True) if (name in inner) == side)
            for side in (False, True)
        ]
        if not all(any(image.annotations for image in part) for part in parts):
            raise DataError(
                f"the {len(names)} training images of {dataset.name} in {len(sizes)} groups cannot be split: "
                f"{len(parts[0])} for training and {len(parts[1])} for selection, a part without a box",
                "Give more labels, another --inner, or a --by with more groups.",
            )
        return replace(dataset, train=parts[0], val=parts[1])


def filter_classes(vocabulary: Vocabulary, wanted: Callable[[str], bool]) -> Vocabulary:
    """The vocabulary with the classes whose names are wanted."""
    classes: tuple[ClassText, ...] = tuple(entry for entry in vocabulary.classes if wanted(entry.name))
    return Vocabulary(classes, vocabulary.inner, vocabulary.version)


def filter_boxes(images: Sequence[LabelledImage], vocabulary: Vocabulary) -> tuple[LabelledImage, ...]:
    """The images with the boxes of these classes; images without such a box stay."""
    names = set(vocabulary.names)
    return tuple(
        replace(image, annotations=tuple(a for a in image.annotations if a.label in names))
        for image in images
    )
