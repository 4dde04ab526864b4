"""The same training in one process and in two processes under torchrun: losses, weights and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from dsmoe_core.errors import ServiceError
from dsmoe_core.processor import available_cores
from pipelines.benchmarks.scale.nano_workspace import BATCH, NanoWorkspace
from pipelines.progress import ProgressReporter
from pipelines.settings.environment import own_process_environment

_LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def measure_torchrun(
    made: NanoWorkspace, folder: Path, images_seen: int, processes: int, progress: ProgressReporter
) -> dict[str, Any]:
    """Train with the same batch in one process with one thread, with all cores, and in several processes.

    Args:
        folder: of the models.
        images_seen: length of each training.
        processes: under torchrun, with one thread each.

    Returns:
        ``rows``: seconds of the steps and losses of each training; ``max_loss_difference`` and
        ``max_weight_difference`` of the training under torchrun from that with one thread, the latter also
        for all cores (``max_weight_difference_threads``), as the order of additions differs there, too.

    Raises:
        ServiceError: a training fails.
    """
    runs = {"one_thread": (1, 1), "all_cores": (1, available_cores()), "torchrun": (processes, 1)}
    rows: list[dict[str, Any]] = []
    for name, (count, threads) in runs.items():
        progress.status(f"training: {count} processes, {threads} threads each")
        command = [*_LAUNCH, str(count)] if count > 1 else []
        _train([*command, *_arguments(made, folder / name, images_seen)], threads)
        card = json.loads((folder / name / "model.json").read_text(encoding="utf-8"))
        rows.append(
            {
                "run": name,
                "processes": count,
                "threads": threads,
                "steps": card["steps"],
                "seconds": round(card["seconds"], 2),
                "losses": card["losses"],
            }
        )
    one, _, several = rows
    return {
        "batch": BATCH,
        "images_seen": images_seen,
        "max_loss_difference": max(abs(several["losses"][k] - v) for k, v in one["losses"].items()),
        "max_weight_difference": weight_difference(folder / "one_thread", folder / "torchrun"),
        "max_weight_difference_threads": weight_difference(folder / "one_thread", folder / "all_cores"),
        "load": [round(load, 1) for load in os.getloadavg()],
        "rows": rows,
    }


def weight_difference(first: Path, second: Path) -> float:
    """Largest absolute difference of a floating-point value of two models with the same tensors."""
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    return max(
        float((a[name].double() - b[name].double()).abs().max())
        for name in a
        if torch.is_floating_point(a[name]) and a[name].numel()
    )


def _arguments(made: NanoWorkspace, out: Path, images_seen: int) -> list[str]:
    files = ["--annotations", str(made.data / "train.json"), "--images", str(made.data / "images")]
    options = ["--workspace", str(made.workspace), "--images-seen", str(images_seen)]
    return ["-m", "pipelines.cli", "train", str(out), *files, *options]


def _train(arguments: Sequence[str], threads: int) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=own_process_environment({"OMP_NUM_THREADS": str(threads)}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServiceError(
            f"a training ended with exit code {done.returncode}: {done.stderr[-2000:]}",
            "Run the command in the message by hand, or free some memory.",
        )
