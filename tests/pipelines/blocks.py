"""Images for the stub detector: coloured blocks on grey, one colour per class."""

from __future__ import annotations

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

# The colours are close, so that models trained on few labels confuse some classes.
COLOURS = {"rust": (210, 60, 40), "brick": (200, 95, 60), "plum": (170, 60, 95)}


def write_blocks(folder: Path, train: int = 12, val: int = 5, seed: int = 1, px: int = 96) -> Path:
    """Write a demo's data folder: images/, train.json, val.json. Every image has one to three blocks."""
    images = folder / "images"
    images.mkdir(parents=True)
    rng = random.Random(seed)
    for part, count in (("train", train), ("val", val)):
        entries, boxes = [], []
        for number in range(count):
            name = f"{part}-{number:03d}.png"
            image = Image.new("RGB", (px, px), (128, 128, 128))
            pen = ImageDraw.Draw(image)
            for column in rng.sample(range(3), rng.randint(1, 3)):
                label = rng.choice(list(COLOURS))
                side, x, y = rng.randint(12, 20), column * 32 + 4, rng.randint(4, px - 28)
                colour = tuple(c + rng.randint(-25, 25) for c in COLOURS[label])
                pen.rectangle((x, y, x + side - 1, y + side - 1), fill=colour)
                category = list(COLOURS).index(label) + 1
                boxes.append(
                    {
                        "id": len(boxes) + 1,
                        "image_id": number + 1,
                        "category_id": category,
                        "bbox": [x, y, side, side],
                        "area": side * side,
                        "iscrowd": 0,
                    }
                )
            image.save(images / name)
            entries.append({"id": number + 1, "file_name": name, "width": px, "height": px})
        categories = [{"id": i + 1, "name": label} for i, label in enumerate(COLOURS)]
        content = {"images": entries, "annotations": boxes, "categories": categories}
        (folder / f"{part}.json").write_text(json.dumps(content))
    return folder
