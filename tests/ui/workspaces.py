"""Workspaces for the tests of the pages, made by the loop with its stubs: no server, no training."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from annotate.studio.fake import FakeStudio
from pipelines.demo import DemoData, open_workspace, run_rounds
from pipelines.detectors.stub_detector import StubDetector
from pipelines.progress import SilentProgress
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import open_round
from pipelines.rounds.simulated_annotator import load_truth, simulated_annotator
from pipelines.settings.demo import DemoPlan
from pipelines.workspace.workspace import Workspace

COLOURS = {"scratch": (220, 30, 30), "dent": (30, 200, 30), "stain": (40, 40, 230)}


def make_workspace(
    folder: Path,
    *,
    rounds: int,
    then_open: bool = False,
    title: str = "plates",
    classes: Sequence[str] = tuple(COLOURS),
    images: Sequence[str] = (),
) -> Path:
    """Make a workspace with this number of closed rounds, and with an open one if ``then_open``.

    Args:
        title: in the title of the workspace.
        classes: names of the classes, three.
        images: names of the first images; the others have plain names.
    """
    data = DemoData(_render_data(folder / "data", classes, images), title)
    plan = DemoPlan(rounds=max(rounds - 1, 0), budget=6, candidates=None, dry_run=True)
    with open_workspace(folder / "workspace", data, plan, SilentProgress()) as workspace:
        context = LoopContext(
            workspace, FakeStudio(workspace.path / "studio" / "s.json"), StubDetector(), SilentProgress()
        )
        if rounds:
            truth = load_truth(data.folder / "train.json", workspace)
            list(run_rounds(context, plan, simulated_annotator(truth)))
        if then_open:
            open_round(context)
        return Workspace.open(workspace.path).path


def _render_data(folder: Path, classes: Sequence[str], names: Sequence[str]) -> Path:
    """Write images/, train.json and val.json: grey plates with one to three coloured spots."""
    (folder / "images").mkdir(parents=True)
    generator = random.Random(7)
    for part, count in (("train", 30), ("val", 6)):
        entries, boxes = [], []
        for number in range(count):
            name = names[number] if part == "train" and number < len(names) else f"{part}-{number:03d}.png"
            plate = Image.new("RGB", (96, 96), (128, 128, 128))
            pen = ImageDraw.Draw(plate)
            for column in generator.sample(range(3), generator.randint(1, 3)):
                label = generator.choice(list(COLOURS))
                side, x, y = generator.randint(12, 20), column * 32 + 4, generator.randint(4, 68)
                colour = tuple(c + generator.randint(-25, 25) for c in COLOURS[label])
                pen.rectangle((x, y, x + side - 1, y + side - 1), fill=colour)
                box = {"image_id": number + 1, "category_id": list(COLOURS).index(label) + 1}
                box |= {"bbox": [x, y, side, side], "area": side * side, "iscrowd": 0, "id": len(boxes) + 1}
                boxes.append(box)
            (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            plate.save(folder / "images" / name)
            entries.append({"id": number + 1, "file_name": name, "width": 96, "height": 96})
        categories = [{"id": i + 1, "name": label} for i, label in enumerate(classes)]
        content = {"images": entries, "annotations": boxes, "categories": categories}
        (folder / f"{part}.json").write_text(json.dumps(content))
    return folder
