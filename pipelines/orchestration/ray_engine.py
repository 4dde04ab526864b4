"""Bulk prediction on Ray: images in shards, each predicted by an actor and written when it is complete.

An actor loads the model once. If its process is killed, Ray starts it again and repeats its shard. If the
whole job is killed, the same call continues with the shards that are missing. Shards are multiples of the
batch, so that every batch has the images that it has without Ray.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsmoe_core.atomic import atomic_write
from dsmoe_core.digest import content_id, sha256_of
from dsmoe_core.errors import PrerequisiteError, ServiceError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import ImageRecord, Prediction
from pipelines.detectors.backend import PredictFunction
from pipelines.workspace.prediction_store import from_json, to_json

SHARD_BATCHES = 8
"""Batches in a shard: what is predicted again after a kill."""
MAX_RESTARTS = 10
"""Restarts of a killed actor after which the job fails. Attempts of a shard have no limit of their own: on a
busy machine Ray sends it several times to an actor that is dead already, before it knows that."""
LOOPBACK = "127.0.0.1"
CONNECT_TIMEOUT_S = 10.0
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_OWN_CLUSTER = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}
"""Of a cluster of this process. Without the first variable Ray takes the address of the machine and
listens on every interface. With its niceness of 15, workers get no time next to other programs."""
_LOGGING: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
_INIT_ERRORS = (ConnectionError, TimeoutError, RuntimeError)


@dataclass(frozen=True, slots=True)
class RaySettings:
    """Where and how a job runs.

    Attributes:
        address: of a cluster that runs, ``HOST:PORT`` or ``auto``; None: a cluster of this process, on
            loopback, without a dashboard.
        workers: number of actors.
        checkpoints: folder of the shards that are complete.
    """

    workers: int
    checkpoints: Path
    address: str | None = None


def predict_on_ray(
    images: Sequence[ImageRecord],
    load: Callable[[], PredictFunction],
    settings: RaySettings,
    *,
    batch: int,
    identity: Mapping[str, Any],
    progress: CountCallback,
) -> list[Prediction]:
    """Predict images with several actors; the same predictions in the same order as without Ray.

    Args:
        images: their files must be readable on every machine of the cluster, under the same paths.
        load: loads the model; called once in each actor, so it must be picklable.
        batch: images per forward pass.
        identity: model, class book and options, as JSON values; shards of another identity are not used.
        progress: called with (images done, images in total).

    Raises:
        PrerequisiteError: Ray is not installed.
        ServiceError: the cluster cannot be reached, or a shard failed after several attempts.
    """
    size = batch * SHARD_BATCHES
    shards = [tuple(images[i : i + size]) for i in range(0, len(images), size)]
    files = [_file_of(shard, number, settings.checkpoints, identity) for number, shard in enumerate(shards)]
    missing = [i for i, file in enumerate(files) if not file.is_file()]
    done = len(images) - sum(len(shards[i]) for i in missing)
    progress(done, len(images))
    if missing:
        settings.checkpoints.mkdir(parents=True, exist_ok=True)
        with _cluster(settings) as ray:
            for i, lines in _run(ray, [(i, shards[i]) for i in missing], load, settings.workers):
                atomic_write(files[i], lines)
                done += len(shards[i])
                progress(done, len(images))
    return [prediction for file in files for prediction in read_shard(file)]


def write_shard(predictions: Sequence[Prediction]) -> str:
    """Predictions as lines of JSON, exact: unlike the stored ones, no value is rounded."""
    return "".join(json.dumps(_exact(prediction)) + "\n" for prediction in predictions)


def read_shard(file: Path) -> list[Prediction]:
    """The inverse of ``write_shard``."""
    return [from_json(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def _exact(prediction: Prediction) -> dict[str, Any]:
    raw = to_json(prediction)
    raw["routing"]["weights"] = list(prediction.routing.weights)
    for row, detection in zip(raw["detections"], prediction.detections, strict=True):
        row["score"], row["entropy"] = detection.score, detection.entropy
        row["probabilities"] = dict(detection.probabilities)
        row["uncertainty"] = dict(detection.uncertainty)
    return raw


def _file_of(shard: Sequence[ImageRecord], number: int, folder: Path, identity: Mapping[str, Any]) -> Path:
    """The file of a shard; its name depends on the content of the images and on the identity."""
    content = [[image.key, sha256_of(image.path)] for image in shard]
    return folder / f"{number:05}-{content_id([dict(identity), content])}.jsonl"


class _Worker:
    """Actor: a model in a process of its own."""

    def __init__(self, load: Callable[[], PredictFunction]) -> None:
        self._model = load()

    def predict(self, shard: Sequence[ImageRecord]) -> str:
        return write_shard(list(self._model(shard)))


def _run(
    ray: Any,
    shards: Sequence[tuple[int, Sequence[ImageRecord]]],
    load: Callable[[], PredictFunction],
    workers: int,
) -> Iterator[tuple[int, str]]:
    """(number, lines) of each shard as it is completed; an actor has one shard at a time."""
    remote = ray.remote(num_cpus=1, max_restarts=MAX_RESTARTS, max_task_retries=-1)(_Worker)
    actors = [remote.remote(load) for _ in range(min(workers, len(shards)))]
    waiting = list(reversed(shards))
    running: dict[Any, tuple[int, Any]] = {}
    free = list(actors)
    while waiting or running:
        while waiting and free:
            number, shard = waiting.pop()
            actor = free.pop()
            running[actor.predict.remote(list(shard))] = (number, actor)
        finished, _ = ray.wait(list(running), num_returns=1)
        number, actor = running.pop(finished[0])
        try:
            lines = ray.get(finished[0])
        except ray.exceptions.RayActorError as error:
            raise ServiceError(
                f"the worker of shard {number} was killed {MAX_RESTARTS + 1} times ({type(error).__name__})",
                "Give it more memory, or lower --workers or --batch, and run the same command again.",
            ) from error
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from error
        yield number, lines
        free.append(actor)


def _require_cluster(address: str) -> None:
    """Refuse an address that does not accept a connection; Ray itself would try again for minutes.

    Raises:
        ServiceError: nothing listens there, or it is not ``HOST:PORT`` or ``auto``.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ServiceError(
            f"no Ray cluster at {address!r}, expected HOST:PORT or auto ({error})",
            "Start it with `ray start`, or leave out --address.",
        ) from error


@contextmanager
def _cluster(settings: RaySettings) -> Iterator[Any]:
    """Ray, connected to a cluster; at the end the connection, or the cluster of this process, is closed."""
    os.environ.update(_ENVIRONMENT if settings.address else _ENVIRONMENT | _OWN_CLUSTER)
    try:
        import ray
    except ImportError as error:
        raise PrerequisiteError(
            "Ray is not installed, which --engine ray needs", "Install it with `pip install 'dsmoe[scale]'`."
        ) from error
    if settings.address is None:
        _start(ray, settings.workers)
    else:
        _connect(ray, settings.address)
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, workers: int) -> None:
    """Start a cluster of this process; its token stays in the environment, no file of the user is written."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        ray.init(
            address="local", num_cpus=workers, include_dashboard=False, _node_ip_address=LOOPBACK, **_LOGGING
        )
    except _INIT_ERRORS as error:
        raise ServiceError(
            f"Ray could not start a cluster on {LOOPBACK}: {error}",
            "Look into /tmp/ray/session_latest/logs, and run the command again, or leave out --engine ray.",
        ) from error


def _connect(ray: Any, address: str) -> None:
    """Connect to a cluster that runs."""
    _require_cluster(address)
    try:
        ray.init(address=address, **_LOGGING)
    except _INIT_ERRORS as error:
        raise ServiceError(
            f"the Ray cluster at {address} cannot be reached: {error}",
            "Start it with `ray start`, or leave out --address.",
        ) from error
