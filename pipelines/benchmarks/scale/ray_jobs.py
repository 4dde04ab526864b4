"""Bulk prediction in this process and on Ray: time, equality, and what a killed worker costs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dsmoe_core.data.external_images import read_external_folder
from dsmoe_core.errors import ServiceError
from dsmoe_core.processor import available_cores
from dsmoe_core.progress import CountCallback
from dsmoe_core.runtimes.loading import RuntimeOptions
from dsmoe_core.schema import ImageRecord, Prediction
from dsmoe_core.uncertainty import MIN_SCORE
from pipelines.benchmarks.scale.block_images import write_block_images
from pipelines.benchmarks.scale.nano_workspace import BATCH, NanoWorkspace
from pipelines.detectors.backend import PredictFunction
from pipelines.detectors.predict import DetectorSource
from pipelines.orchestration.ray_engine import RaySettings, predict_on_ray
from pipelines.progress import ProgressReporter
from pipelines.settings.workspace import MAX_PIXELS
from pipelines.workspace.workspace import Workspace

Load = Callable[[], PredictFunction]


@dataclass(frozen=True)
class RecordedLoad:
    """Loads a model in a worker and records the worker's process id as a file of ``folder``."""

    load: Load
    folder: Path

    def __call__(self) -> PredictFunction:
        """The model."""
        model = self.load()
        (self.folder / str(os.getpid())).touch()
        return model

    def processes(self) -> list[int]:
        """Process ids of all workers so far, in no order."""
        return [int(file.name) for file in self.folder.iterdir()]


@dataclass(slots=True)
class JobClock:
    """Progress callback that takes the times of a job, and kills a worker once it is half done.

    Attributes:
        victims: gives the process ids of the workers; None: no worker is killed.
        first: seconds after the start, and images, when the first images were done.
        killed: process id of the worker that was killed, and the images done then.
    """

    report: CountCallback
    victims: Callable[[], Sequence[int]] | None = None
    started: float = field(default_factory=time.perf_counter)
    first: tuple[float, int] | None = None
    killed: tuple[int, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Called with (images done, images in total)."""
        self.report(done, total)
        if done and self.first is None:
            self.first = (time.perf_counter() - self.started, done)
        if self.victims is not None and self.killed is None and 2 * done >= total:
            for process in self.victims():
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                    self.killed = (process, done)
                    return

    def row(self, images: int) -> dict[str, float]:
        """Seconds of the whole job until now, and images per second with and without the start."""
        seconds = time.perf_counter() - self.started
        first_s, first = self.first or (0.0, 0)
        return {
            "seconds": round(seconds, 2),
            "first_s": round(first_s, 2),
            "images_per_s": round(images / seconds, 2),
            "images_per_s_after_first": round((images - first) / max(seconds - first_s, 1e-9), 2),
        }


def prediction_job(
    made: NanoWorkspace, model: Path, folder: Path, count: int, px: int, seed: int
) -> tuple[list[ImageRecord], DetectorSource]:
    """New synthetic images below ``folder``, and the model that is to predict them.

    Args:
        count, px: number and side of the images.
        seed: of the images; another one than that of the training.
    """
    write_block_images(folder / "pool", count, 1, px, seed)
    (folder / "read").mkdir(parents=True, exist_ok=True)
    found = read_external_folder(folder / "pool" / "images", folder / "read", max_pixels=MAX_PIXELS)
    images = [image for image in found.images if image.name.startswith("train_")]
    with Workspace.open(made.workspace) as opened:
        vocabulary = opened.class_book().vocabulary()
    return images, DetectorSource(model, made.workspace, RuntimeOptions(), vocabulary, MIN_SCORE, BATCH)


def measure_ray(
    images: Sequence[ImageRecord],
    load: Load,
    folder: Path,
    workers: int,
    progress: ProgressReporter,
    *,
    kill: bool = False,
) -> dict[str, Any]:
    """Predict in this process with one thread, with all cores, and on Ray; or on Ray with a worker killed.

    Args:
        folder: new folder of the shards.
        workers: processes of Ray, each with one thread.
        kill: a worker is killed with SIGKILL when half of the images are done; this process then predicts
            with one thread only.

    Returns:
        ``rows``: times by engine; ``missing`` and ``unequal``: images whose prediction on Ray is missing or
        differs from that with one thread; with ``kill``, ``killed_at``: images that were done then.

    Raises:
        PrerequisiteError: Ray is not installed.
        ServiceError: Ray's cluster does not start, or no worker could be killed.
    """
    rows, threads = [], torch.get_num_threads()
    local: list[list[Prediction]] = []
    try:
        for count in [1] if kill else dict.fromkeys([1, available_cores()]):
            torch.set_num_threads(count)
            progress.status(f"predicting in this process, {count} threads")
            clock = JobClock(progress.advance)
            local.append(_predict_here(images, load, clock))
            rows.append({"engine": "local", "processes": 1, "threads": count, **clock.row(len(images))})
    finally:
        torch.set_num_threads(threads)
    progress.status(f"predicting on Ray, {workers} workers")
    (folder / "workers").mkdir(parents=True)
    recorded = RecordedLoad(load, folder / "workers")
    clock = JobClock(progress.advance, recorded.processes if kill else None)
    settings = RaySettings(workers, folder / "shards")
    found = predict_on_ray(images, recorded, settings, batch=BATCH, identity={}, progress=clock)
    rows.append({"engine": "ray", "processes": workers, "threads": 1, **clock.row(len(images))})
    if kill and clock.killed is None:
        raise ServiceError("no worker was running when half of the images were done", "Give more --images.")
    return {
        "images": len(images),
        "batch": BATCH,
        "detections": sum(len(prediction.detections) for prediction in local[0]),
        **compared(found, local[0]),
        **({"unequal_all_cores": compared(local[-1], local[0])["unequal"]} if len(local) > 1 else {}),
        **(
            {"killed_at": clock.killed[1], "workers_started": len(recorded.processes())}
            if clock.killed
            else {}
        ),
        "load": [round(load, 1) for load in os.getloadavg()],
        "rows": rows,
    }


def compared(found: Sequence[Prediction], expected: Sequence[Prediction]) -> dict[str, int]:
    """Number of expected predictions that are missing, and of those that are there and differ."""
    by_key = {prediction.key: prediction for prediction in found}
    present = [prediction for prediction in expected if prediction.key in by_key]
    return {
        "missing": len(expected) - len(present),
        "unequal": sum(by_key[prediction.key] != prediction for prediction in present),
    }


def _predict_here(images: Sequence[ImageRecord], load: Load, progress: CountCallback) -> list[Prediction]:
    """Predict in this process; loading the model is part of the job, as on Ray."""
    predictions: list[Prediction] = []
    for prediction in load()(images):
        predictions.append(prediction)
        progress(len(predictions), len(images))
    return predictions
