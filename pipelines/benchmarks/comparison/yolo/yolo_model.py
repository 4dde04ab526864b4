"""YOLOv8 as a model of a comparison: starts ``runner.py``, shows its progress and reads its result."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from annotate import environments
from annotate.environments import LockedEnvironment
from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import ModelError, PrerequisiteError, SettingsError
from dsmoe_core.progress import StatusCallback
from dsmoe_core.schema import Box, Detection, LabelledImage, Prediction, Routing
from dsmoe_core.suppression import NMS_IOU
from pipelines.benchmarks.comparison.digests import module_digest
from pipelines.benchmarks.comparison.protocol import (
    MAX_PER_IMAGE,
    MIN_SCORE,
    BenchmarkDataset,
    Budget,
    TrainingResult,
)
from pipelines.benchmarks.comparison.yolo.yolo_dataset import write_yolo_dataset
from pipelines.progress import ProgressReporter

FOLDER = Path(__file__).parent
ENVIRONMENT = LockedEnvironment(
    "yolo", "YOLOv8", FOLDER / "yolo.lock", required_bytes=8_000_000_000, size="5 GB with torch"
)
RUNNER = FOLDER / "runner.py"
YOLO_SIZES = tuple(f"yolov8{size}" for size in "nsmlx")
POLL_S = 0.5
WEIGHTS, TRAINING = "weights.npz", "training.json"
"""Files that a finished training leaves in its folder."""


def yolo_python(environments_folder: Path) -> Callable[[StatusCallback], Path]:
    """A function that returns the interpreter of the YOLO environment and builds it if needed."""
    return lambda on_status: (
        environments.ensure(ENVIRONMENT, environments_folder, on_status) / "bin" / "python"
    )


class YoloModel:
    """YOLOv8 of one size from random weights, trained by ultralytics with its own recipe.

    Batch, number of gradient updates per epoch and NMS are those of DS-MoE.

    Args:
        size: of ``YOLO_SIZES``.
        batch: images per step; gradients are not accumulated.
        rate: multiple of the learning rate that ultralytics chooses.
        python: returns the interpreter that runs ``runner``.
        poll_s: seconds between two looks at the progress of the runner.
    """

    def __init__(
        self,
        size: str,
        image_px: int,
        python: Callable[[StatusCallback], Path],
        runner: Path = RUNNER,
        poll_s: float = POLL_S,
        *,
        batch: int,
        rate: float = 1.0,
    ) -> None:
        self.name = size if rate == 1 else f"{size}-rate{rate:g}"
        self.image_px = image_px
        self._size = size
        self._batch = batch
        self._rate = rate
        self._python = python
        self._runner = runner
        self._poll_s = poll_s

    def identity(self, dataset: BenchmarkDataset) -> dict[str, Any]:
        """All settings, the runner's code and the locked packages; texts do not matter."""
        del dataset
        code = [module_digest(self._runner), sha256_of(ENVIRONMENT.lock)]
        return {
            "model": self._size,
            "px": self.image_px,
            "batch": self._batch,
            "rate": self._rate,
            "nms_iou": NMS_IOU,
            "code": code,
        }

    def train(
        self, dataset: BenchmarkDataset, budget: Budget, seed: int, folder: Path, progress: ProgressReporter
    ) -> TrainingResult:
        """Train and predict in the runner; a killed training starts over, a finished one is not repeated.

        Raises:
            ModelError: the runner ended without a result.
            PrerequisiteError: the environment cannot be built.
            SettingsError: the budget is in images.
        """
        if budget.images is not None:
            raise SettingsError(
                f"{self.name} cannot be trained for {budget.images} images; it trains whole epochs",
                "Give epochs or minutes.",
            )
        folder.mkdir(parents=True, exist_ok=True)
        result, predictions = self._predict(dataset, {"seed": seed, **budget.plain}, folder, progress)
        notes = {"steps": result["steps"], "settings": result["settings"]}
        return TrainingResult(
            predictions, result["images_seen"] / len(dataset.train), result["seconds"], notes
        )

    def predict_trained(
        self, dataset: BenchmarkDataset, folder: Path, progress: ProgressReporter
    ) -> list[Prediction]:
        """Predict ``dataset.val`` with the weights that ``train`` left in the folder.

        Raises:
            ModelError: there are none, or the runner ended without a result.
            PrerequisiteError: the environment cannot be built.
        """
        if not (folder / TRAINING).is_file():
            raise ModelError(f"{folder} has no trained {self.name}", "Train it first.")
        return self._predict(dataset, {}, folder, progress)[1]

    def _predict(
        self, dataset: BenchmarkDataset, training: dict[str, Any], folder: Path, progress: ProgressReporter
    ) -> tuple[dict[str, Any], list[Prediction]]:
        """Train if the folder has no trained weights, and predict: the runner's result, and the predictions.

        Args:
            training: seed and budget.
        """
        folder = folder.absolute()
        trained = (folder / TRAINING).is_file()
        python = self._python(progress.status)
        with _empty_folder(folder / "scratch") as scratch:
            progress.status(f"{self.name}: copying images")
            copied = replace(dataset, train=()) if trained else dataset
            data, val_images = write_yolo_dataset(copied, scratch / "data")
            job = {
                "model": self._size,
                "data": str(data),
                "classes": len(dataset.vocabulary.names),
                "val_images": [str(path) for path in val_images],
                "px": self.image_px,
                "threads": torch.get_num_threads(),
                "batch": self._batch,
                "rate": self._rate,
                "min_score": MIN_SCORE,
                "nms_iou": NMS_IOU,
                "max_detections": MAX_PER_IMAGE,
                "weights": str(folder / WEIGHTS),
                "training": str(folder / TRAINING),
                **training,
            }
            result = self._run(python, job, scratch, folder / "log.txt", progress)
        predictions = [
            _prediction(rows, labelled, dataset.vocabulary.names, self.name)
            for rows, labelled in zip(result["detections"], dataset.val, strict=True)
        ]
        return result, predictions

    def _run(
        self, python: Path, job: Mapping[str, Any], scratch: Path, log: Path, progress: ProgressReporter
    ) -> dict[str, Any]:
        job_file, result_file, progress_file = (
            scratch / f"{name}.json" for name in ("job", "result", "progress")
        )
        job_file.write_text(json.dumps(job), encoding="utf-8")
        progress.status(f"{self.name}: starting")
        command = [str(python), str(self._runner), str(job_file), str(result_file), str(progress_file)]
        with log.open("wb") as output:
            try:
                # The runner ends when this pipe closes, which happens however this process ends.
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    env=runner_environment(scratch),
                    cwd=scratch,
                )
            except OSError as error:
                raise PrerequisiteError(
                    f"{python} cannot be run: {error.strerror}", "Remove its folder; it is built again."
                ) from error
            with process:
                try:
                    while process.poll() is None:
                        _show_progress(self.name, progress_file, progress)
                        time.sleep(self._poll_s)
                except BaseException:
                    process.kill()
                    raise
        _show_progress(self.name, progress_file, progress)
        if process.returncode or not result_file.is_file():
            output_end = " ".join(log.read_text("utf-8", "replace").split())[-600:]
            raise ModelError(
                f"{self.name} ended with exit code {process.returncode} and no result: {output_end}",
                f"See {log}, then run the same command again.",
            )
        result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
        return result


@contextmanager
def _empty_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that is removed after the ``with`` block; leftovers of a killed process are removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def runner_environment(home: Path) -> dict[str, str]:
    """Environment variables of the runner: none of the user's settings or keys, and no telemetry."""
    return {
        "PATH": os.defpath,
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "YOLO_CONFIG_DIR": str(home),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
    }


def _show_progress(name: str, progress_file: Path, progress: ProgressReporter) -> None:
    try:
        state = json.loads(progress_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    progress.status(f"{name}: training")
    progress.advance(state["done"], state["total"])


def _prediction(
    rows: list[list[float]], labelled: LabelledImage, names: tuple[str, ...], version: str
) -> Prediction:
    """The prediction of an image from the runner's detections; boxes without an area are dropped."""
    detections = [
        Detection(Box(x1, y1, x2, y2), names[int(index)], score, {names[int(index)]: score}, 0.0)
        for x1, y1, x2, y2, score, index in rows
        if x1 < x2 and y1 < y2
    ]
    return Prediction(labelled.image.key, tuple(detections), Routing((), (), 0.0), 0.0, version)
