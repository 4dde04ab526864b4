"""YOLOv8 as a contestant: hands ``runner.py`` a job as files, shows its progress, and reads its answer."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from annotate import environments
from annotate.environments import LockedEnvironment
from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.progress import StatusCallback
from dsmoe_core.schema import Box, Detection, LabelledImage, Prediction, Routing
from pipelines.benchmarks.comparison.protocol import MIN_SCORE, MOST, Budget, Learned, Lesson
from pipelines.benchmarks.comparison.yolo import files
from pipelines.progress import ProgressReporter

ROOM = Path(__file__).parent
YOLO = LockedEnvironment(
    "yolo", "YOLOv8", ROOM / "yolo.lock", required_bytes=8_000_000_000, size="5 GB with torch"
)
RUNNER = ROOM / "runner.py"
SIZES = tuple(f"yolov8{size}" for size in "nsmlx")
LOOK_S = 0.5


def built(folder: Path) -> Callable[[StatusCallback], Path]:
    """The interpreter of YOLO's environment below ``folder``; built when it is first asked for."""
    return lambda on_status: environments.ensure(YOLO, folder, on_status) / "bin" / "python"


class YoloContestant:
    """YOLOv8 of one size from scratch, by ultralytics with its own recipe.

    Args:
        python: says where the interpreter is that runs ``runner``.
    """

    def __init__(
        self, name: str, image_px: int, python: Callable[[StatusCallback], Path], runner: Path = RUNNER
    ) -> None:
        self.name = name
        self.image_px = image_px
        self._python = python
        self._runner = runner

    def identity(self, lesson: Lesson) -> dict[str, Any]:
        """Its size and the code that it runs, of which the lock is a part; what it learns from is no part."""
        del lesson
        code = hashlib.sha256(self._runner.read_bytes() + YOLO.lock.read_bytes()).hexdigest()
        return {"model": self.name, "px": self.image_px, "code": code}

    def learn(
        self, lesson: Lesson, budget: Budget, seed: int, folder: Path, progress: ProgressReporter
    ) -> Learned:
        """Train and look; a killed training is begun anew.

        Raises:
            ModelError: the process ended without an answer.
            PrerequisiteError: its environment cannot be built.
        """
        folder.mkdir(parents=True, exist_ok=True)
        python = self._python(progress.status)
        with _empty(folder.absolute() / "scratch") as home:
            progress.status(f"{self.name}: copying images")
            data, look = files.write(lesson, home / "data")
            job = {
                "model": self.name,
                "data": str(data),
                "look": [str(path) for path in look],
                "px": self.image_px,
                "seed": seed,
                "threads": torch.get_num_threads(),
                "min_score": MIN_SCORE,
                "most": MOST,
                **budget.plain,
            }
            answer = self._run(python, job, home, folder / "log.txt", progress)
        detections = [
            _detections(row, labelled, lesson.vocabulary.names, self.name)
            for row, labelled in zip(answer["findings"], lesson.val, strict=True)
        ]
        notes = {"steps": answer["steps"], "settings": answer["settings"]}
        return Learned(detections, answer["pictures_seen"] / len(lesson.train), answer["seconds"], notes)

    def _run(
        self, python: Path, job: Mapping[str, Any], home: Path, log: Path, progress: ProgressReporter
    ) -> dict[str, Any]:
        asked, answer, state = (home / f"{name}.json" for name in ("job", "answer", "progress"))
        asked.write_text(json.dumps(job), encoding="utf-8")
        progress.status(f"{self.name}: starting")
        command = [str(python), str(self._runner), str(asked), str(answer), str(state)]
        with log.open("wb") as file:
            try:
                # An open pipe says that we live; the runner ends where it closes, however we end.
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=_environment(home), cwd=home
                )
            except OSError as error:
                raise PrerequisiteError(
                    f"{python} cannot be run: {error.strerror}", "Remove its folder; it is built again."
                ) from error
            with process:
                try:
                    while process.poll() is None:
                        _tell(self.name, state, progress)
                        time.sleep(LOOK_S)
                except BaseException:
                    process.kill()
                    raise
        _tell(self.name, state, progress)
        if process.returncode or not answer.is_file():
            last = " ".join(log.read_text("utf-8", "replace").split())[-600:]
            raise ModelError(
                f"{self.name} ended with exit {process.returncode} and no answer: {last}",
                f"See {log}, then run the same command again.",
            )
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found


@contextmanager
def _empty(folder: Path) -> Iterator[Path]:
    """A folder for as long as the block lasts; what a killed process left in it goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(home: Path) -> dict[str, str]:
    """Made from nothing, so that no setting or key of the user's reaches it; its telemetry is off."""
    return {
        "PATH": os.defpath,
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "YOLO_CONFIG_DIR": str(home),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
    }


def _tell(name: str, state_file: Path, progress: ProgressReporter) -> None:
    try:
        state = json.loads(state_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    progress.status(f"{name}: training")
    progress.advance(state["done"], state["total"])


def _detections(
    rows: list[list[float]], labelled: LabelledImage, names: tuple[str, ...], version: str
) -> Prediction:
    found = [
        Detection(Box(x1, y1, x2, y2), names[int(label)], score, {names[int(label)]: score}, 0.0)
        for x1, y1, x2, y2, score, label in rows
        if x1 < x2 and y1 < y2
    ]
    return Prediction(labelled.image.key, tuple(found), Routing((), (), 0.0), 0.0, version)
