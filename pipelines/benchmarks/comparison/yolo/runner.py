"""Trains and runs YOLOv8 in the environment of yolo.lock: ``runner.py JOB.json ANSWER.json PROGRESS.json``.

Run as a file of its own: it imports nothing of ours, and nothing of ours imports it. It reaches no network:
any attempt is refused before it leaves Python. It ends when whoever started it is gone.

JOB: ``model`` (yolov8n), ``data`` (data.yaml), ``look`` (images to judge on, in order), ``px``, ``seed``,
``threads``, ``min_score``, ``most`` (detections an image), and ``epochs`` or ``minutes``.
ANSWER: ``detections`` (per image rows of x1, y1, x2, y2 in its pixels, score, number of the class),
``steps``, ``images_seen``, ``seconds`` (of the training loop alone) and ``settings``. PROGRESS: ``done``,
``total``.
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

OFFLINE = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")
BATCH = 16
"""Ultralytics' own default, which its recipe is made for."""


def refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: sockets between processes of this machine are files and have names, not hosts."""
    if event in OFFLINE and (event != "socket.connect" or isinstance(arguments[1], tuple)):
        raise OSError(f"no network here: {event} {arguments[1:]}")


def end_with_parent() -> None:
    """Nobody waits for an orphan's answer, and two trainings at once would disturb each other's budget."""

    def wait() -> None:
        os.read(0, 1)  # returns when the pipe's other end is closed; sys.stdin would be locked at exit
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


def train(job: dict[str, Any], folder: Path, progress: Path) -> tuple[Any, dict[str, Any]]:
    """From fresh weights to the moving average of the last ones, as with DS-MoE; val picks no epoch."""
    import torch
    from ultralytics.data import utils  # type: ignore[import-not-found]
    from ultralytics.models.yolo.detect import DetectionTrainer  # type: ignore[import-not-found]

    utils.check_font = lambda *_: None  # it downloads one, for plots that nobody makes
    gpu = torch.cuda.is_available()

    class Trainer(DetectionTrainer):  # type: ignore[misc]
        """Ultralytics' own, but it never looks at the images that it is judged on, and keeps no file."""

        def validate(self) -> tuple[dict[str, float], float]:
            return {}, 0.0

        def final_eval(self) -> None:
            pass

        def save_model(self) -> bool:
            return False

    settings = {
        "batch": BATCH,
        "imgsz": job["px"],
        "seed": job["seed"],
        "amp": "bf16" if gpu else False,  # on a processor ultralytics has fp32 alone
        "cache": True,
        "patience": 1_000_000,
        **({"time": job["minutes"] / 60} if job.get("minutes") else {"epochs": job["epochs"]}),
    }
    fixed = {"pretrained": False, "plots": False, "val": False, "save": False, "verbose": False}
    where = {"project": str(folder), "name": "run", "exist_ok": True, "device": 0 if gpu else "cpu"}
    trainer = Trainer(
        overrides={"model": f"{job['model']}.yaml", "data": job["data"], **settings, **fixed, **where}
    )
    counted = follow(trainer, job, progress)
    # Ultralytics takes all cores but one when it chooses a processor, so it is told as late as can be.
    trainer.add_callback("on_train_start", lambda _: torch.set_num_threads(job["threads"]))
    trainer.train()
    return trainer.ema.ema, {**counted, "settings": {**settings, "threads": torch.get_num_threads()}}


def follow(trainer: Any, job: dict[str, Any], progress: Path) -> dict[str, Any]:
    """Counts steps, images and the seconds of the training loop while it runs."""
    counted: dict[str, Any] = {"steps": 0, "pictures_seen": 0, "seconds": 0.0}
    began = [0.0]

    def start(_: Any) -> None:
        began[0] = time.monotonic()

    def step(running: Any) -> None:
        counted["steps"] += 1
        epochs = counted["steps"] / len(running.train_loader)  # the last batch of each is smaller
        counted["pictures_seen"] = round(epochs * len(running.train_loader.dataset))
        counted["seconds"] = time.monotonic() - began[0]
        if job.get("minutes"):
            done, total = counted["seconds"], 60 * job["minutes"]
        else:
            done, total = counted["steps"], job["epochs"] * len(running.train_loader)
        write(progress, {"done": min(int(done), int(total)), "total": int(total)})

    trainer.add_callback("on_train_start", start)
    trainer.add_callback("on_train_batch_end", step)
    return counted


def look(network: Any, job: dict[str, Any]) -> list[list[list[float]]]:
    """Detections of each image, by ultralytics' own way of predicting with its way of validating.

    Every class is looked for in every cell, as we do; its ``predict`` does not, and mAP is lower so.
    """
    from ultralytics import YOLO  # type: ignore[import-not-found]
    from ultralytics.utils import nms  # type: ignore[import-not-found]

    nms.non_max_suppression = partial(nms.non_max_suppression, multi_label=True)
    model = YOLO(f"{job['model']}.yaml")
    model.model = network.float().eval()
    rows = []
    for path in job["look"]:
        (found,) = model.predict(
            path, imgsz=job["px"], conf=job["min_score"], max_det=job["most"], iou=0.7, verbose=False
        )
        table = found.boxes.data.cpu().double()
        rows.append([[round(value, 5) for value in row] for row in table.tolist()])
    return rows


def write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content), encoding="utf-8")
    draft.replace(path)


def main(job: Path, answer: Path, progress: Path) -> None:
    """One job."""
    end_with_parent()
    sys.addaudithook(refuse_network)
    asked = json.loads(job.read_text(encoding="utf-8"))
    network, learned = train(asked, answer.parent, progress)
    write(answer, {**learned, "findings": look(network, asked)})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
