"""Writer of synthetic data sets, in the layout of the real ones: images/, train.json, val.json (COCO)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from dsmoe_core.config import SyntheticKind
from dsmoe_core.data import coco
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.synthetic.generators import GENERATORS, generator_version
from dsmoe_core.progress import CountCallback

_RECIPE_FILE = ".synthetic.json"
SYNTHETIC_SET_FILES = ("images", "train.json", "val.json", _RECIPE_FILE)
"""Files and folders of a synthetic set; all of them may be overwritten."""
_SEEDS_PER_SET = 1_000_000  # so that sets of different seeds share no image


def write_synthetic_set(
    folder: Path,
    kind: SyntheticKind,
    train: int,
    val: int,
    seed: int,
    px: int,
    progress: CountCallback | None = None,
) -> None:
    """Render a data set into a folder; a set that was rendered with the same arguments and code is kept.

    Args:
        train, val: number of images.
        seed: sets of different seeds share no image.
        px: side of the images in pixels.
        progress: called with (images done, images in total).
    """
    render, classes = GENERATORS[kind]
    recipe = {"kind": kind, "train": train, "val": val, "seed": seed, "px": px, "by": generator_version()}
    recipe_file = folder / _RECIPE_FILE
    if recipe_file.is_file() and json.loads(recipe_file.read_text()) == recipe:
        return
    recipe_file.unlink(missing_ok=True)
    shutil.rmtree(folder / "images", ignore_errors=True)  # of another set, or of an interrupted run
    (folder / "images").mkdir(parents=True)
    done = 0
    for part, count in (("train", train), ("val", val)):
        entries = []
        for i in range(count):
            rendered = render(seed * _SEEDS_PER_SET + done, px)
            name = f"{part}_{i:05d}.jpg"
            rendered.image.save(folder / "images" / name, quality=95, subsampling=0)
            entries.append(ImageAnnotations(name, px, px, rendered.annotations))
            done += 1
            if progress is not None:
                progress(done, train + val)
        coco.write(AnnotationSet(classes, tuple(entries)), folder / f"{part}.json")
    recipe_file.write_text(json.dumps(recipe))
