"""Sweeps over the initial weights of the image encoder: `dsmoe benchmark warmstart` and `first-model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsmoe_core.errors import SettingsError
from pipelines.benchmarks.comparison.dsmoe_model import DsmoeModel
from pipelines.benchmarks.comparison.models import ModelBuilder, Size
from pipelines.benchmarks.comparison.sweep import EntryPair, Sweep, SweepEntry
from pipelines.benchmarks.comparison.variants import UNCHANGED, require_known, require_shares
from pipelines.settings.detector import backbone_of_start

SCRATCH, IMAGENET_LITE = "scratch", "imagenet-lite"
STARTS = (SCRATCH, "warm", IMAGENET_LITE, "masked", "distilled")
"""Names of initial weights: random, the packaged warm start, EfficientNet-Lite0's of ImageNet with its
backbone, and the two objectives of `dsmoe pretrain` on unlabelled images."""


def start_sweep(
    starts: Sequence[str], shares: Sequence[float], size: Size, models: ModelBuilder, warm: Path | None
) -> Sweep:
    """One detector from random weights and from a warm start, at several shares of the training images.

    The two are compared at each share.

    Args:
        warm: file with the initial weights of the image encoder.

    Raises:
        SettingsError: a start is unknown, a share is not in (0, 1], or the file of the warm start is missing.
    """
    require_known(starts, STARTS[:2], "start")
    require_shares(shares)
    by_start = start_models(starts, size, models, {} if warm is None else {"warm": warm})
    entries = _entries(by_start, shares, size, models.px)
    return _sweep([replace(entry, train_share=float(entry.keys["labels"])) for entry in entries])


def first_model_sweep(
    starts: Sequence[str],
    labels: Sequence[int],
    size: Size,
    models: ModelBuilder,
    files: Mapping[str, Path],
    changes: Sequence[str] = (),
) -> Sweep:
    """Several initial weights at several numbers of labelled images.

    At each number, all are compared with the first start without a change.

    Args:
        labels: numbers of training images; the smaller sets are subsets of the larger ones.
        files: initial weights by the name of the start; random weights have none.
        changes: of the training settings; each start is also trained with each of them.

    Raises:
        SettingsError: a start or a number is unknown or repeated, a change is wrong, or a file is missing.
    """
    require_known(starts, STARTS, "start")
    if not labels or min(labels) < 1 or len(set(labels)) != len(labels):
        raise SettingsError(
            f"the numbers of labelled images are {','.join(map(str, labels)) or 'empty'}; expected different "
            "numbers of at least 1",
            "Give some such as 40,100,200.",
        )
    by_settings = {
        settings: start_models(
            starts, size, models if settings == UNCHANGED else models.with_training(settings), files
        )
        for settings in (UNCHANGED, *changes)
    }
    entries: list[SweepEntry] = []
    pairs: list[EntryPair] = []
    for amount in labels:
        first = len(entries)
        for settings, by_start in by_settings.items():
            keys = {"settings": settings} if changes else {}
            for entry in _entries(by_start, [amount], size, models.px, keys):
                if len(entries) > first:
                    named = {"labels": amount, "start": entry.keys["start"], **keys, "against": starts[0]}
                    pairs.append(EntryPair(len(entries), first, named))
                entries.append(replace(entry, train_images=amount))
    return Sweep(entries, pairs)


def start_models(
    starts: Sequence[str], size: Size, models: ModelBuilder, files: Mapping[str, Path]
) -> dict[str, DsmoeModel]:
    """The detector with each of the initial weights.

    Raises:
        SettingsError: a file is missing.
    """
    built = {}
    for start in starts:
        file = None if start == SCRATCH else files.get(start)
        if start != SCRATCH and (file is None or not file.is_file()):
            raise SettingsError(
                f"the file of the start {start} does not exist: {file}",
                f"Make it and name it (see --help), or leave out `{start}`.",
            )
        config = models.preset(size).model_copy(update={"backbone": backbone_of_start(start)})
        name = f"{size}-{IMAGENET_LITE}" if start == IMAGENET_LITE else size
        built[start] = models.dsmoe(name, config, encoder_from=file)
    return built


def _entries(
    by_start: Mapping[str, DsmoeModel],
    labels: Sequence[float],
    size: Size,
    px: int,
    keys: Mapping[str, Any] | None = None,
) -> list[SweepEntry]:
    """An entry for each number of labels and each start, with further keys."""
    return [
        SweepEntry({"labels": amount, "start": start, **(keys or {}), "model": size, "image_px": px}, model)
        for amount in labels
        for start, model in by_start.items()
    ]


def _sweep(entries: Sequence[SweepEntry]) -> Sweep:
    """The entries, each compared with random weights at the same share of the labels."""
    index = {(entry.keys["labels"], entry.keys["start"]): i for i, entry in enumerate(entries)}
    pairs = [
        EntryPair(i, index[labels, SCRATCH], {"labels": labels, "start": start, "against": SCRATCH})
        for (labels, start), i in index.items()
        if start != SCRATCH and (labels, SCRATCH) in index
    ]
    return Sweep(entries, pairs)
