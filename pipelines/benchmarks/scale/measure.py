"""The parts of scale.json by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.benchmarks.scale.nano_workspace import NanoWorkspace
from pipelines.benchmarks.scale.overhead import OverheadOptions, measure_overhead
from pipelines.benchmarks.scale.ray_jobs import measure_ray, prediction_job
from pipelines.benchmarks.scale.torchrun import measure_torchrun
from pipelines.progress import ProgressReporter
from pipelines.settings.environment import Environment


@dataclass(frozen=True, slots=True)
class ScaleOptions:
    """Sizes of the measurements.

    Attributes:
        overhead: of the part ``overhead``.
        images: predicted on Ray.
        px: side of the images and of the network's input, for Ray and torchrun.
        images_seen: length of each training: of the model that predicts, and of the part ``torchrun``.
        processes: workers of Ray, and processes of torchrun.
    """

    overhead: OverheadOptions
    images: int = 2000
    px: int = 96
    images_seen: int = 160
    processes: int = 2
    seed: int = 0


Part = Callable[[Path, ScaleOptions, Environment, ProgressReporter], dict[str, Any]]


def _overhead(
    folder: Path, options: ScaleOptions, environment: Environment, progress: ProgressReporter
) -> dict[str, Any]:
    return measure_overhead(folder, options.overhead, environment, progress)


def _ray(
    folder: Path,
    options: ScaleOptions,
    environment: Environment,
    progress: ProgressReporter,
    *,
    kill: bool = False,
) -> dict[str, Any]:
    made = NanoWorkspace.make(folder, options.px, options.seed)
    made.train(folder / "model", options.images_seen, environment, progress)
    images, source = prediction_job(
        made, folder / "model", folder, options.images, options.px, options.seed + 1
    )
    measured = measure_ray(images, source.load, folder / "ray", options.processes, progress, kill=kill)
    return {"image_px": options.px, **measured}


def _ray_killed(
    folder: Path, options: ScaleOptions, environment: Environment, progress: ProgressReporter
) -> dict[str, Any]:
    return _ray(folder, options, environment, progress, kill=True)


def _torchrun(
    folder: Path, options: ScaleOptions, environment: Environment, progress: ProgressReporter
) -> dict[str, Any]:
    del environment  # the trainings are processes of their own
    made = NanoWorkspace.make(folder, options.px, options.seed)
    measured = measure_torchrun(made, folder, options.images_seen, options.processes, progress)
    return {"image_px": options.px, **measured}


PARTS: dict[str, Part] = {
    "overhead": _overhead,
    "ray": _ray,
    "ray_killed": _ray_killed,
    "torchrun": _torchrun,
}
"""Each part measures in a new folder and returns its content of scale.json."""
