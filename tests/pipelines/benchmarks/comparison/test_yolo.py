"""YOLO as a model of a comparison, with a fake runner and with the real one, which takes a minute."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from dsmoe_core.errors import ModelError, PrerequisiteError, SettingsError
from dsmoe_core.schema import Annotation, Box, LabelledImage
from pipelines.benchmarks.comparison.protocol import MAX_PER_IMAGE, BenchmarkDataset, Budget
from pipelines.benchmarks.comparison.yolo import runner
from pipelines.benchmarks.comparison.yolo.yolo_dataset import label_rows, write_yolo_dataset
from pipelines.benchmarks.comparison.yolo.yolo_model import (
    RUNNER,
    TRAINING,
    WEIGHTS,
    YoloModel,
    runner_environment,
    yolo_python,
)
from tests.pipelines.benchmarks.comparison.conftest import RecordingProgress
from tests.pipelines.benchmarks.comparison.fake_yolo import FAILING_SEED

FAKE = Path(__file__).with_name("fake_yolo.py")


def fake_yolo(python: Path = Path(sys.executable)) -> YoloModel:
    return YoloModel("yolov8n", 96, lambda _: python, FAKE, poll_s=0.05, batch=4)


def real_yolo(environments: Path, rate: float = 1.0) -> YoloModel:
    return YoloModel("yolov8n", 96, yolo_python(environments), batch=4, rate=rate)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.slow)])
def yolo(request: pytest.FixtureRequest, environments: Path) -> YoloModel:
    if request.param == "fake":
        return fake_yolo()
    return real_yolo(environments)


def test_model_is_trained_and_predicts_in_order(
    yolo: YoloModel, dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path
) -> None:
    files_before = {p.image.path: p.image.path.read_bytes() for p in (*dataset.train, *dataset.val)}
    leftover = tmp_path / "run" / "scratch" / "data" / "labels" / "train"  # of a killed process
    leftover.mkdir(parents=True)
    result = yolo.train(dataset, Budget(epochs=2), 1, tmp_path / "run", progress)
    assert [prediction.key for prediction in result.predictions] == [p.image.key for p in dataset.val]
    assert result.epochs == 2
    assert result.seconds > 0
    for prediction, labelled in zip(result.predictions, dataset.val, strict=True):
        assert len(prediction.detections) <= MAX_PER_IMAGE
        for detection in prediction.detections:
            assert detection.label in dataset.vocabulary.names
            assert 0 <= detection.score <= 1
            assert detection.box.inside(labelled.image.width, labelled.image.height)
    assert result.notes["settings"]["imgsz"] == 96
    assert result.notes["settings"]["threads"] == torch.get_num_threads()
    assert progress.done[-1][0] <= progress.done[-1][1]
    assert {path: path.read_bytes() for path in files_before} == files_before
    files = {"log.txt", TRAINING, WEIGHTS}
    assert {path.name for path in (tmp_path / "run").iterdir()} == files
    assert (result.notes["settings"]["batch"], result.notes["settings"]["nbs"]) == (4, 4)
    assert yolo.predict_trained(dataset, tmp_path / "run", progress) == result.predictions
    again = yolo.train(dataset, Budget(epochs=2), 1, tmp_path / "run", progress)
    assert (again.seconds, again.epochs) == (result.seconds, result.epochs), "nothing is trained again"
    assert {path.name for path in (tmp_path / "run").iterdir()} == files


def test_budget_in_images_and_missing_weights_are_refused(
    dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="40 images"):
        fake_yolo().train(dataset, Budget(images=40), 1, tmp_path, progress)
    with pytest.raises(ModelError, match=str(tmp_path)):
        fake_yolo().predict_trained(dataset, tmp_path, progress)


@pytest.mark.slow
def test_rate_multiplies_the_learning_rates_of_the_recipe(
    environments: Path, dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path
) -> None:
    """Each image of ten in batches of four: three steps per epoch, none of them accumulated."""
    results = [
        real_yolo(environments, rate).train(dataset, Budget(epochs=1), 1, tmp_path / str(rate), progress)
        for rate in (1.0, 0.5)
    ]
    assert [result.notes["steps"] for result in results] == [3, 3]
    unchanged, halved = (result.notes["settings"]["learning_rates"] for result in results)
    assert halved == pytest.approx([rate / 2 for rate in unchanged])
    assert min(unchanged) > 0


@pytest.mark.slow
def test_real_model_detects_its_training_images(
    environments: Path, dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path
) -> None:
    """Would fail if boxes were returned in the pixels of the resized image."""
    from dsmoe_core.evaluation.coco_metrics import evaluate

    same = BenchmarkDataset("same", dataset.vocabulary, dataset.train, dataset.train)
    yolo = real_yolo(environments)
    result = yolo.train(same, Budget(epochs=300), 1, tmp_path / "run", progress)
    assert evaluate(result.predictions, same.val, same.vocabulary.names).map50 > 0.3


@pytest.mark.slow
def test_real_model_trains_until_its_minutes_are_over(
    environments: Path, dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path
) -> None:
    yolo = real_yolo(environments)
    result = yolo.train(dataset, Budget(minutes=0.1), 1, tmp_path / "run", progress)
    assert result.seconds > 3  # ultralytics ends with the nearest epoch, by its own estimate
    assert result.epochs > 2
    assert progress.done[-1][1] == 6


def test_failed_runner_is_reported_with_its_output_and_log(
    dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"yolov8n .* 1 .*failing on purpose.*log\.txt"):
        fake_yolo().train(dataset, Budget(epochs=1), FAILING_SEED, tmp_path / "run", progress)


def test_missing_interpreter_is_reported(
    dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    with pytest.raises(PrerequisiteError, match=str(python)):
        fake_yolo(python).train(dataset, Budget(epochs=1), 1, tmp_path / "run", progress)


def test_runner_gets_no_variables_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSMOE_LLM_API_KEY", "secret")
    assert set(runner_environment(tmp_path)) == {
        "PATH",
        "HOME",
        "LANG",
        "YOLO_CONFIG_DIR",
        "YOLO_OFFLINE",
        "YOLO_AUTOINSTALL",
    }


def test_identity_covers_size_and_code_and_no_text(dataset: BenchmarkDataset, tmp_path: Path) -> None:
    def identity(name: str, px: int, code: Path = FAKE, *, batch: int = 4, rate: float = 1.0) -> str:
        return str(YoloModel(name, px, lambda _: Path(), code, batch=batch, rate=rate).identity(dataset))

    other = tmp_path / "runner.py"
    other.write_text("pass")
    assert identity("yolov8n", 96) == identity("yolov8n", 96)
    others = [identity("yolov8s", 96), identity("yolov8n", 64), identity("yolov8n", 96, other)]
    others += [identity("yolov8n", 96, batch=8), identity("yolov8n", 96, rate=2)]
    assert len({identity("yolov8n", 96), *others}) == 6


def test_dataset_is_copied_and_boxes_are_shares(dataset: BenchmarkDataset, tmp_path: Path) -> None:
    data, val_images = write_yolo_dataset(dataset, tmp_path / "data")
    assert len(val_images) == len(dataset.val)
    assert not any(path.is_symlink() for path in val_images)
    rows = [line.split() for line in (tmp_path / "data/labels/val/000000.txt").read_text().splitlines()]
    for row, annotation in zip(rows, dataset.val[0].annotations, strict=True):
        assert dataset.vocabulary.names[int(row[0])] == annotation.label
        x, y, w, h = (float(value) * 96 for value in row[1:])
        corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        assert corners == pytest.approx(annotation.box.corners, abs=1e-3)
    assert f"path: {tmp_path / 'data'}" in data.read_text()


def test_box_is_clipped_to_the_image(dataset: BenchmarkDataset) -> None:
    outside = Annotation(Box(-0.5, 10, 20, 96.5), dataset.vocabulary.names[0])
    labelled = LabelledImage(dataset.val[0].image, (outside,))
    _, x, y, w, h = map(float, label_rows(labelled, dataset.vocabulary).split())
    assert (x - w / 2, y + h / 2) == pytest.approx((0.0, 1.0), abs=1e-5)


@pytest.mark.slow
def test_truncated_jpeg_is_not_rewritten(
    environments: Path, dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path
) -> None:
    """Ultralytics repairs such a file in place, so it must get a copy."""
    truncated = tmp_path / "truncated.jpg"
    Image.open(dataset.train[0].image.path).save(truncated)
    truncated.write_bytes(truncated.read_bytes()[:-2] + b"\0\0")
    before = hashlib.sha256(truncated.read_bytes()).hexdigest()
    image = replace(dataset.train[0].image, path=truncated)
    changed = replace(dataset, train=(replace(dataset.train[0], image=image), *dataset.train[1:]))
    yolo = real_yolo(environments)
    yolo.train(changed, Budget(epochs=1), 1, tmp_path / "run", progress)
    assert hashlib.sha256(truncated.read_bytes()).hexdigest() == before


def start_runner(tmp_path: Path, program: str) -> subprocess.Popen[bytes]:
    """Start a program that can import ``runner``."""
    shutil.copy(RUNNER, tmp_path / "runner.py")
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_runner_ends_with_its_parent(tmp_path: Path) -> None:
    program = "import runner, time; runner.end_with_parent(); print(1, flush=True); time.sleep(60)"
    with start_runner(tmp_path, program) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        started = time.monotonic()
        process.stdin.close()
        assert process.wait(30) == 3
        assert time.monotonic() - started < 30


def test_runner_exits_normally_while_it_waits_for_its_parent(tmp_path: Path) -> None:
    with start_runner(tmp_path, "import runner; runner.end_with_parent()") as process:
        assert process.wait(30) == 0


def test_runner_refuses_the_network(tmp_path: Path) -> None:
    program = (
        "import runner, socket, sys\n"
        "sys.addaudithook(runner.refuse_network)\n"
        "for reach in (lambda: socket.create_connection(('127.0.0.1', 9)),\n"
        "              lambda: socket.getaddrinfo('example.org', 443),\n"
        "              lambda: socket.socket().connect(('127.0.0.1', 9))):\n"
        "    try: reach()\n"
        "    except OSError as error: assert 'no network here' in str(error), error\n"
        "    else: sys.exit('reached')\n"
        "a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n"
        "s = socket.socket(socket.AF_UNIX); s.bind('here'); s.listen()\n"
        "socket.socket(socket.AF_UNIX).connect('here')\n"
    )
    with start_runner(tmp_path, program) as process:
        assert process.wait(30) == 0


def test_runner_leaves_no_draft_file(tmp_path: Path) -> None:
    runner.write(tmp_path / "a.json", {"done": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
