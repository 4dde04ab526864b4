"""Loads COCO data sets for a comparison; the images stay where they are."""

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
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset
from pipelines.progress import ProgressReporter
from pipelines.settings import MAX_PIXELS
from prompts.glossary import glossary_book


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
    order = random.Random(seed).sample(range(len(dataset.train)), len(dataset.train))  # noqa: S311 - no secret
    first_labelled = next(place for place, i in enumerate(order) if dataset.train[i].annotations)
    order.insert(0, order.pop(first_labelled))
    sampled = sorted(order[: max(1, round(share * len(order)))])
    return replace(dataset, train=tuple(dataset.train[i] for i in sampled), train_share=share)
