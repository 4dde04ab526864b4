"""A YOLO export of a dataset version, read by ultralytics itself."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.benchmarks.comparison.yolo.yolo_model import yolo_python
from pipelines.cli import run
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round

READ = """
import json, sys
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset
data = check_det_dataset(sys.argv[1], autodownload=False)
labels = YOLODataset(img_path=data["train"], data=data, augment=False, imgsz=96).labels
rows = [[l["im_file"], l["shape"], l["cls"].ravel().tolist(), l["bboxes"].tolist()] for l in labels]
print(json.dumps({"names": data["names"], "rows": rows}))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ultralytics_reads_the_same_boxes(
    context: LoopContext, label: Callable[[LoopContext], None], tmp_path: Path, environments: Path
) -> None:
    open_round(context)
    label(context)
    close_round(context)
    workspace = context.workspace
    dataset = workspace.dataset_version(str(workspace.rounds()[0].dataset_version))
    out = tmp_path / "export"
    options = ["--format", "yolo", "--out", str(out), "--version", dataset.id]
    assert run(["data", "export", str(workspace.path), *options]) == 0
    program = [str(yolo_python(environments)(lambda _: None)), "-c", READ, str(out / "data.yaml")]
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "true"}
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout.splitlines()[-1])
    assert [read["names"][str(i)] for i in range(len(read["names"]))] == list(dataset.classes)
    found = {
        Path(file).name: sorted(
            (dataset.classes[int(i)], *box) for i, box in zip(classes, boxes, strict=True)
        )
        for file, _, classes, boxes in read["rows"]
    }
    sizes = {Path(file).name: shape for file, shape, *_ in read["rows"]}
    assert set(found) == {Path(item.name).name for item in dataset.train}
    for item in dataset.train:
        name = Path(item.name).name
        height, width = sizes[name]
        expected = sorted(
            (
                b.label,
                (b.box[0] + b.box[2]) / 2 / width,
                (b.box[1] + b.box[3]) / 2 / height,
                (b.box[2] - b.box[0]) / width,
                (b.box[3] - b.box[1]) / height,
            )
            for b in item.boxes
        )
        assert [row[0] for row in found[name]] == [row[0] for row in expected]
        for a, b in zip(found[name], expected, strict=True):
            assert a[1:] == pytest.approx(b[1:], abs=1e-5)
