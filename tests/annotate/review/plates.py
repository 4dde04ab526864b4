"""Review samples with small image files, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from annotate.review.sample import ReviewSample
from dsmoe_core.schema import Annotation, Box, Detection, ImageRecord, Prediction, Routing

DENT = Annotation(Box(8.0, 8.0, 24.0, 24.0), "dent")


def samples(folder: Path, count: int, version: str = "m1+b1") -> Iterator[ReviewSample]:
    """Samples 0 to count - 1.

    Every third is labelled, every fourth has no prediction, and the uncertainty grows with the number.
    """
    for number in range(count):
        path = folder / f"plate-{number}.png"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 48), (90, 90, 20 * number % 256)).save(path)
        image = ImageRecord(f"{number:064x}", f"line/{path.name}", path, 64, 48)
        detection = Detection(Box(6.0, 9.0, 22.0, 25.0), "dent", 0.6, {"scratch.deep": 0.5, "dent": 0.6}, 0.6)
        routing = Routing((number % 5, 5), (0.75, 0.25), 1.0)
        prediction = Prediction(image.key, (detection,), routing, number / 100, version)
        yield ReviewSample(
            image,
            (DENT,) if number % 3 == 0 else None,
            None if number % 4 == 3 else prediction,
            ("pool", "round 1") if number % 3 == 0 else ("pool",),
        )
