"""In the place of YOLO's runner, for fast tests: finds true boxes, the more of them the longer it trains.

Keeps the words of ``runner.py``: JOB, ANSWER, PROGRESS.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image


def rows(image: Path, share: float) -> list[list[float]]:
    label = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")
    width, height = Image.open(image).size
    found = []
    for i, line in enumerate(label.read_text().splitlines()):
        number, x, y, w, h = map(float, line.split())
        sides = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        found.append([*sides, 0.9 - 0.1 * i, number])
    return found[: max(1, round(share * len(found)))]


def main(job: Path, answer: Path, progress: Path) -> None:
    asked: dict[str, Any] = json.loads(job.read_text())
    train = [*(Path(asked["data"]).parent / "images" / "train").iterdir()]
    if asked["seed"] == 13:
        sys.exit("no luck today")
    epochs = asked.get("epochs") or 1
    progress.write_text(json.dumps({"done": epochs, "total": epochs}))
    share = min(1.0, epochs / 4)
    answer.write_text(
        json.dumps(
            {
                "findings": [rows(Path(path), share) for path in asked["look"]],
                "steps": epochs,
                "pictures_seen": epochs * len(train),
                "seconds": 1.5,
                "settings": {"imgsz": asked["px"], "threads": asked["threads"]},
            }
        )
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
