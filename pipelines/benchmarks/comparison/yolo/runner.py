"""Trains YOLOv8 and predicts: ``runner.py JOB.json RESULT.json PROGRESS.json``.

This script runs in the environment of yolo.lock, so it must not import modules of the project. It refuses
every network connection and ends when its parent process ends.

JOB: ``model`` (yolov8n), ``data`` (data.yaml), ``classes`` (their number), ``val_images`` (paths, in order),
``px``, ``seed``, ``threads``, ``batch``, ``rate`` (multiple of the learning rate that ultralytics chooses),
``min_score``, ``nms_iou``, ``max_detections`` (per image), ``weights`` and ``training`` (files to keep), and
``epochs`` or ``minutes``.
RESULT: ``detections`` (for each image a list of [x1, y1, x2, y2 in its pixels, score, class index]),
``steps``, ``images_seen``, ``seconds`` (of the training loop alone) and ``settings``.
PROGRESS: ``done``, ``total``.

``weights`` holds the trained weights, and ``training`` the RESULT without ``detections``. If ``training``
exists, nothing is trained.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

NETWORK_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")


def refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook that refuses network access; Unix sockets, whose address is a path, are allowed."""
    if event in NETWORK_EVENTS and (event != "socket.connect" or isinstance(arguments[1], tuple)):
        raise OSError(f"no network here: {event} {arguments[1:]}")


def end_with_parent() -> None:
    """Exit when the parent process ends; an orphaned training would slow down the next one."""

    def wait() -> None:
        os.read(0, 1)  # returns when the parent's end of the pipe closes; sys.stdin would be locked at exit
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


def train(job: dict[str, Any], folder: Path, progress: Path) -> tuple[Any, dict[str, Any]]:
    """Train from random weights; returns the moving average of the last weights, as DS-MoE does.

    The validation images are not used to select an epoch. Each batch is a step: ``nbs``, to which ultralytics
    would accumulate gradients, is the batch. So both detectors make the same number of steps per epoch. The
    learning rate of the recipe is multiplied by ``rate``.
    """
    import torch
    from ultralytics.data import utils  # type: ignore[import-not-found]
    from ultralytics.models.yolo.detect import DetectionTrainer  # type: ignore[import-not-found]

    utils.check_font = lambda *_: None  # it would download a font for plots, which are off
    gpu = torch.cuda.is_available()
    rates: list[float] = []

    class Trainer(DetectionTrainer):  # type: ignore[misc]
        """Trainer of ultralytics without validation, without checkpoints and with another learning rate."""

        def build_optimizer(self, *args: Any, **kwargs: Any) -> Any:
            optimizer = super().build_optimizer(*args, **kwargs)
            for group in optimizer.param_groups:
                group["lr"] *= job["rate"]
            rates.extend(group["lr"] for group in optimizer.param_groups)
            return optimizer

        def validate(self) -> tuple[dict[str, float], float]:
            return {}, 0.0

        def final_eval(self) -> None:
            pass

        def save_model(self) -> bool:
            return False

    settings = {
        "batch": job["batch"],
        "nbs": job["batch"],
        "imgsz": job["px"],
        "seed": job["seed"],
        "amp": "bf16" if gpu else False,  # on a CPU ultralytics supports only fp32
        "cache": True,
        "patience": 1_000_000,
        **({"time": job["minutes"] / 60} if job.get("minutes") else {"epochs": job["epochs"]}),
    }
    fixed = {"pretrained": False, "plots": False, "val": False, "save": False, "verbose": False}
    where = {"project": str(folder), "name": "run", "exist_ok": True, "device": 0 if gpu else "cpu"}
    trainer = Trainer(
        overrides={"model": f"{job['model']}.yaml", "data": job["data"], **settings, **fixed, **where}
    )
    effort = record_effort(trainer, job, progress)
    # Ultralytics sets the number of threads when it selects the device, so it is set again after that.
    trainer.add_callback("on_train_start", lambda _: torch.set_num_threads(job["threads"]))
    trainer.train()
    used = {"optimizer": trainer.args.optimizer, "learning_rates": rates, "threads": torch.get_num_threads()}
    return trainer.ema.ema, {**effort, "settings": {**settings, **used}}


def keep(network: Any, training: dict[str, Any], job: dict[str, Any]) -> None:
    """Write the trained weights, and then the record that marks the end of the training."""
    import numpy as np

    arrays = {name: tensor.cpu().numpy() for name, tensor in network.float().state_dict().items()}
    np.savez(job["weights"], **arrays)
    write(Path(job["training"]), training)


def trained_network(job: dict[str, Any]) -> Any:
    """The network with the kept weights."""
    import numpy as np
    import torch
    from ultralytics.nn.tasks import DetectionModel  # type: ignore[import-not-found]

    network = DetectionModel(f"{job['model']}.yaml", nc=job["classes"], verbose=False)
    with np.load(job["weights"], allow_pickle=False) as arrays:
        network.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return network


def record_effort(trainer: Any, job: dict[str, Any], progress: Path) -> dict[str, Any]:
    """Count steps, images and seconds of the training loop while it runs, and write the progress."""
    effort: dict[str, Any] = {"steps": 0, "images_seen": 0, "seconds": 0.0}
    started = [0.0]

    def start(_: Any) -> None:
        started[0] = time.monotonic()

    def step(running: Any) -> None:
        effort["steps"] += 1
        epochs = effort["steps"] / len(running.train_loader)  # the last batch of an epoch is smaller
        effort["images_seen"] = round(epochs * len(running.train_loader.dataset))
        effort["seconds"] = time.monotonic() - started[0]
        if job.get("minutes"):
            done, total = effort["seconds"], 60 * job["minutes"]
        else:
            done, total = effort["steps"], job["epochs"] * len(running.train_loader)
        write(progress, {"done": min(int(done), int(total)), "total": int(total)})

    trainer.add_callback("on_train_start", start)
    trainer.add_callback("on_train_batch_end", step)
    return effort


def predict(network: Any, job: dict[str, Any]) -> list[list[list[float]]]:
    """Detections of each image, by the prediction of ultralytics with the NMS of its validation.

    With ``multi_label`` each cell can have detections of several classes, as in DS-MoE and in the validation
    of ultralytics. Its prediction keeps only the best class of a cell, which lowers the mAP.
    """
    from ultralytics import YOLO  # type: ignore[import-not-found]
    from ultralytics.utils import nms  # type: ignore[import-not-found]

    nms.non_max_suppression = partial(nms.non_max_suppression, multi_label=True)
    model = YOLO(f"{job['model']}.yaml")
    model.model = network.float().eval()
    detections = []
    for path in job["val_images"]:
        (result,) = model.predict(
            path,
            imgsz=job["px"],
            conf=job["min_score"],
            max_det=job["max_detections"],
            iou=job["nms_iou"],
            verbose=False,
        )
        table = result.boxes.data.cpu().double()
        detections.append([[round(value, 5) for value in row] for row in table.tolist()])
    return detections


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content), encoding="utf-8")
    draft.replace(path)


def main(job_file: Path, result_file: Path, progress_file: Path) -> None:
    """Run one job."""
    end_with_parent()
    sys.addaudithook(refuse_network)
    job = json.loads(job_file.read_text(encoding="utf-8"))
    record = Path(job["training"])
    if not record.is_file():
        keep(*train(job, result_file.parent, progress_file), job)
    training = json.loads(record.read_text(encoding="utf-8"))
    write(result_file, {**training, "detections": predict(trained_network(job), job)})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
