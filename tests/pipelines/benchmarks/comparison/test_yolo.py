"""YOLO as a contestant: one contract for the fake runner and the real one, which takes a minute."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.schema import Annotation, Box
from pipelines.benchmarks.comparison.protocol import MOST, Budget, Lesson
from pipelines.benchmarks.comparison.yolo import files, runner
from pipelines.benchmarks.comparison.yolo import yolo_model as room
from pipelines.benchmarks.comparison.yolo.yolo_model import YoloContestant
from tests.pipelines.benchmarks.comparison.conftest import RecordingProgress

FAKE = Path(__file__).with_name("fake_yolo.py")


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.slow)])
def yolo(request: pytest.FixtureRequest, environments: Path) -> YoloContestant:
    if request.param == "fake":
        return YoloContestant("yolov8n", 96, lambda _: Path(sys.executable), FAKE)
    return YoloContestant("yolov8n", 96, room.built(environments))


def test_it_trains_and_finds_in_order(
    yolo: YoloContestant, lesson: Lesson, progress: RecordingProgress, tmp_path: Path
) -> None:
    before = {p.image.path: p.image.path.read_bytes() for p in (*lesson.train, *lesson.val)}
    left = tmp_path / "bout" / "scratch" / "data" / "labels" / "train"  # by a process that was killed
    left.mkdir(parents=True)
    learned = yolo.learn(lesson, Budget(epochs=2), 1, tmp_path / "bout", progress)
    assert [one.key for one in learned.detections] == [one.image.key for one in lesson.val]
    assert learned.epochs == 2
    assert learned.seconds > 0
    for one, labelled in zip(learned.detections, lesson.val, strict=True):
        assert len(one.detections) <= MOST
        for detection in one.detections:
            assert detection.label in lesson.vocabulary.names
            assert 0 <= detection.score <= 1
            assert detection.box.inside(labelled.image.width, labelled.image.height)
    assert learned.notes["settings"]["imgsz"] == 96
    assert learned.notes["settings"]["threads"] == torch.get_num_threads()
    assert progress.done[-1][0] <= progress.done[-1][1]
    assert {path: path.read_bytes() for path in before} == before
    assert [path.name for path in (tmp_path / "bout").iterdir()] == ["log.txt"]


@pytest.mark.slow
def test_the_real_one_learns_what_it_is_shown(
    environments: Path, lesson: Lesson, progress: RecordingProgress, tmp_path: Path
) -> None:
    """Judged on what it was trained on: boxes that came back in other pixels would find nothing."""
    from dsmoe_core.evaluation.coco_metrics import evaluate

    same = Lesson("same", lesson.vocabulary, lesson.train, lesson.train)
    yolo = YoloContestant("yolov8n", 96, room.built(environments))
    learned = yolo.learn(same, Budget(epochs=300), 1, tmp_path / "bout", progress)
    assert evaluate(learned.detections, same.val, same.vocabulary.names).map50 > 0.3


@pytest.mark.slow
def test_the_real_one_trains_until_its_minutes_are_over(
    environments: Path, lesson: Lesson, progress: RecordingProgress, tmp_path: Path
) -> None:
    yolo = YoloContestant("yolov8n", 96, room.built(environments))
    learned = yolo.learn(lesson, Budget(minutes=0.1), 1, tmp_path / "bout", progress)
    assert learned.seconds > 3  # it ends with the epoch that is nearest, by its own reckoning
    assert learned.epochs > 2
    assert progress.done[-1][1] == 6


def test_one_that_fails_is_named_with_its_last_words(
    lesson: Lesson, progress: RecordingProgress, tmp_path: Path
) -> None:
    yolo = YoloContestant("yolov8n", 96, lambda _: Path(sys.executable), FAKE)
    with pytest.raises(ModelError, match=r"yolov8n ended with exit 1 and no answer: no luck today.*log\.txt"):
        yolo.learn(lesson, Budget(epochs=1), 13, tmp_path / "bout", progress)


def test_an_interpreter_that_is_gone_is_named(
    lesson: Lesson, progress: RecordingProgress, tmp_path: Path
) -> None:
    yolo = YoloContestant("yolov8n", 96, lambda _: tmp_path / "python", FAKE)
    with pytest.raises(PrerequisiteError, match="cannot be run"):
        yolo.learn(lesson, Budget(epochs=1), 1, tmp_path / "bout", progress)


def test_nothing_of_ours_reaches_it(lesson: Lesson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSMOE_LLM_API_KEY", "secret")
    assert set(room._environment(tmp_path)) == {
        "PATH",
        "HOME",
        "LANG",
        "YOLO_CONFIG_DIR",
        "YOLO_OFFLINE",
        "YOLO_AUTOINSTALL",
    }


def test_its_identity_is_its_size_its_code_and_no_words(lesson: Lesson, tmp_path: Path) -> None:
    def identity(name: str, px: int, code: Path = FAKE) -> str:
        return str(YoloContestant(name, px, lambda _: Path(), code).identity(lesson))

    other = tmp_path / "runner.py"
    other.write_text("pass")
    assert identity("yolov8n", 96) == identity("yolov8n", 96)
    others = [identity("yolov8s", 96), identity("yolov8n", 64), identity("yolov8n", 96, other)]
    assert len({identity("yolov8n", 96), *others}) == 4


def test_files_are_copies_and_boxes_are_shares(lesson: Lesson, tmp_path: Path) -> None:
    data, look = files.write(lesson, tmp_path / "data")
    assert len(look) == len(lesson.val)
    assert not any(path.is_symlink() for path in look)
    first = lesson.val[0]
    rows = [line.split() for line in (tmp_path / "data/labels/val/000000.txt").read_text().splitlines()]
    for row, annotation in zip(rows, first.annotations, strict=True):
        assert lesson.vocabulary.names[int(row[0])] == annotation.label
        x, y, w, h = (float(value) * 96 for value in row[1:])
        corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        assert corners == pytest.approx(annotation.box.corners, abs=1e-3)
    assert f"path: {tmp_path / 'data'}" in data.read_text()


def test_a_box_over_the_border_is_cut_to_the_image(lesson: Lesson) -> None:
    over = Annotation(Box(-0.5, 10, 20, 96.5), lesson.vocabulary.names[0])
    one = type(lesson.val[0])(lesson.val[0].image, (over,))
    _, x, y, w, h = map(float, files._rows(one, lesson).split())
    assert (x - w / 2, y + h / 2) == pytest.approx((0.0, 1.0), abs=1e-5)


@pytest.mark.slow
def test_a_jpeg_without_its_end_is_left_as_it_is(
    environments: Path, small: Path, lesson: Lesson, progress: RecordingProgress, tmp_path: Path
) -> None:
    """Ultralytics mends such a file in place; ours must be a copy."""
    from dataclasses import replace

    torn = tmp_path / "torn.jpg"
    Image.open(lesson.train[0].image.path).save(torn)
    torn.write_bytes(torn.read_bytes()[:-2] + b"\0\0")
    before = hashlib.sha256(torn.read_bytes()).hexdigest()
    image = replace(lesson.train[0].image, path=torn)
    changed = replace(lesson, train=(replace(lesson.train[0], image=image), *lesson.train[1:]))
    yolo = YoloContestant("yolov8n", 96, room.built(environments))
    yolo.learn(changed, Budget(epochs=1), 1, tmp_path / "bout", progress)
    assert hashlib.sha256(torn.read_bytes()).hexdigest() == before


def run_runner(tmp_path: Path, program: str) -> subprocess.Popen[bytes]:
    shutil.copy(room.RUNNER, tmp_path / "runner.py")
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_the_runner_ends_with_whoever_started_it(tmp_path: Path) -> None:
    with run_runner(
        tmp_path, "import runner, time; runner.end_with_parent(); print(1, flush=True); time.sleep(60)"
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        began = time.monotonic()
        process.stdin.close()
        assert process.wait(30) == 3
        assert time.monotonic() - began < 30


def test_the_runner_ends_well_while_it_listens(tmp_path: Path) -> None:
    with run_runner(tmp_path, "import runner; runner.end_with_parent()") as process:
        assert process.wait(30) == 0


def test_the_runner_reaches_no_network(tmp_path: Path) -> None:
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
    with run_runner(tmp_path, program) as process:
        assert process.wait(30) == 0


def test_the_runner_writes_whole_files(tmp_path: Path) -> None:
    runner.write(tmp_path / "a.json", {"done": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
