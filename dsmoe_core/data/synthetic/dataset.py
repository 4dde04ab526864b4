"""Writes a drawn data set in the layout of the real ones: images/, train.json, val.json (COCO)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from dsmoe_core.config import SyntheticKind
from dsmoe_core.data import coco
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.synthetic.generators import GENERATORS, generator_version
from dsmoe_core.progress import CountCallback

_DRAWN = ".drawn.json"
SYNTHETIC_SET_FILES = ("images", "train.json", "val.json", _DRAWN)
"""What a set is made of; all of it is ours."""
_SEEDS = 1_000_000  # so that sets of different seeds share no image


def write_synthetic_set(
    folder: Path,
    kind: SyntheticKind,
    train: int,
    val: int,
    seed: int,
    px: int,
    progress: CountCallback | None = None,
) -> None:
    """Draws ``train`` and ``val`` images of a kind, px x px; a set that is already there is left alone.

    Args:
        progress: called with (images done, images in all).
    """
    render, classes = GENERATORS[kind]
    plan = {"kind": kind, "train": train, "val": val, "seed": seed, "px": px, "by": generator_version()}
    done_before = folder / _DRAWN
    if done_before.is_file() and json.loads(done_before.read_text()) == plan:
        return
    done_before.unlink(missing_ok=True)
    shutil.rmtree(folder / "images", ignore_errors=True)  # another set's, or of a run that was killed
    (folder / "images").mkdir(parents=True)
    done = 0
    for part, count in (("train", train), ("val", val)):
        drawn = []
        for i in range(count):
            image = render(seed * _SEEDS + done, px)
            name = f"{part}_{i:05d}.jpg"
            image.image.save(folder / "images" / name, quality=95, subsampling=0)
            drawn.append(ImageAnnotations(name, px, px, image.annotations))
            done += 1
            if progress is not None:
                progress(done, train + val)
        coco.write(AnnotationSet(classes, tuple(drawn)), folder / f"{part}.json")
    done_before.write_text(json.dumps(plan))
