"""Precision and threads of trainings on this processor, measured and kept in the user's cache.

The key is the name of the processor, its cores, the version of torch, and the network: size, backbone, row of
the ablation and input size. What is measured on a loaded machine is used for one training and not kept in the
cache. A training has its choice in its own folder, too, because it cannot be resumed with another precision.

On a GPU, and in a group of processes, nothing is measured.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import platformdirs

from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.digest import content_id
from dsmoe_core.processor import available_cores, is_loaded, processor_name
from pipelines.settings.environment import threads_are_given

FILE = "speed.json"
"""Name of the file of the choices, in the cache and in the folder of a training."""
MIN_IMAGES = 1000
"""Shortest training, in images, for which measuring some seconds pays."""
_log = logging.getLogger(__name__)


def cache_file() -> Path:
    """The file of the choices in the user's cache."""
    return platformdirs.user_cache_path("dsmoe") / FILE


def with_measured_precision(training: TrainingConfig, model: ModelConfig, out: Path) -> TrainingConfig:
    """The training with the precision that is the fastest here, where the settings leave it open.

    The number of threads is set for this process, unless OMP_NUM_THREADS sets it. Short trainings, those on a
    GPU and those in several processes are returned as they are.

    Args:
        out: folder of the training; gets the choice.
    """
    import torch
    import torch.distributed as dist

    is_short = training.minutes is None and training.images_seen < MIN_IMAGES
    if (
        training.precision != "auto"
        or is_short
        or torch.cuda.is_available()
        or dist.is_torchelastic_launched()
    ):
        return training
    key = _key(model)
    choice = _stored(out / FILE, key) or _stored(cache_file(), key)
    if choice is None:
        loaded = is_loaded()  # before the measurement, which adds to the load
        choice = _measured(model)
        if not loaded:
            _store(cache_file(), key, choice)
    _store(out / FILE, key, choice)
    if threads_are_given() is None:
        torch.set_num_threads(choice["threads"])
    return training.model_copy(update={"precision": choice["precision"]})


def speed_options() -> list[Any]:
    """The options to measure: the precision that is chosen without a measurement first, with all threads.

    These are the ones that OMP_NUM_THREADS gives, else one per core: torch's number may be an earlier choice.
    """
    import torch

    from dsmoe_core.training.precision import Precision, training_precision
    from dsmoe_core.training.speed import SpeedOption

    usual = training_precision(TrainingConfig())
    other: Precision = "32-true" if usual == "bf16-mixed" else "bf16-mixed"
    are_given = threads_are_given() is not None
    threads = torch.get_num_threads() if are_given else available_cores()
    options = [SpeedOption(usual, threads), SpeedOption(other, threads)]
    if threads > 1 and not are_given:  # half: one thread per physical core
        options += [SpeedOption(usual, threads // 2), SpeedOption(other, threads // 2)]
    return options


def _measured(model: ModelConfig) -> dict[str, Any]:
    from dsmoe_core.training.speed import fastest, training_speed

    _log.info("measuring the training speed of this processor")
    best, speeds = fastest(
        speed_options(), lambda option: training_speed(model, option, batch=2, steps=2, max_seconds=2.0)
    )
    measured = [{**option._asdict(), "images_per_s": round(speed, 2)} for option, speed in speeds.items()]
    return {**best._asdict(), "measured": measured}


def _store(path: Path, key: str, choice: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps({**_read(path), key: choice}, indent=1) + "\n")


def _stored(path: Path, key: str) -> dict[str, Any] | None:
    choice = _read(path).get(key)
    return choice if isinstance(choice, dict) and {"precision", "threads"} <= choice.keys() else None


def _read(path: Path) -> dict[str, Any]:
    """The choices by key; none if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _key(model: ModelConfig) -> str:
    import torch

    network = [model.size, model.backbone, model.ablation, model.image_px]
    settings = [available_cores(), threads_are_given(), torch.__version__, network]
    return f"{processor_name()} {content_id(settings)}"
