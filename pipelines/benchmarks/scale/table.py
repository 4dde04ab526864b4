"""The tables of scale.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipelines.benchmarks.markdown import markdown_table

Result = Mapping[str, Any]


def scale_table(result: Result) -> str:
    """One table for each part that was measured."""
    return "\n\n".join(render(result[name]) for name, render in _TABLES.items() if name in result)


def _overhead(part: Result) -> str:
    rounds = part["rows"]
    studio = "the stub of Label Studio" if part["studio"] == "stub" else "Label Studio"
    title = (
        f"Steps of a cycle without training and prediction: {part['images']:,} images in the pool, "
        f"{part['test_images']} in the test set, {studio}; seconds, in brackets processor seconds of dsmoe. "
        f"Goal: at most {part['goal_s']:g} s. {_load(part)}"
    )
    head = ("step", *(f"round {row['round']}, {row['sent']} images sent" for row in rounds))
    steps = [[f"`{name}`", *(_time(row["steps"][name]) for row in rounds)] for name in rounds[0]["steps"]]
    total = ["all steps", *(_time(row["overhead"]) for row in rounds)]
    met = ["within the goal", *(_goal(row["overhead"], part["goal_s"]) for row in rounds)]
    return f"{title}\n\n{markdown_table(head, [*steps, total, met])}"


def _time(elapsed: Mapping[str, float]) -> str:
    return f"{elapsed['seconds']:.1f} ({elapsed['cpu_s']:.1f})"


def _goal(elapsed: Mapping[str, float], goal: float) -> str:
    """Whether the time by the clock is within the goal, and in brackets the processor time."""
    yes_or_no = ["yes" if elapsed[name] <= goal else "no" for name in ("seconds", "cpu_s")]
    return f"{yes_or_no[0]} ({yes_or_no[1]})"


def _ray(part: Result) -> str:
    rows = [
        [
            f"{row['engine']}, {row['processes']} x {row['threads']} threads",
            f"{row['seconds']:.1f}",
            f"{row['images_per_s']:.1f}",
            f"{row['images_per_s_after_first']:.1f}",
            f"{row['images_per_s'] / part['rows'][0]['images_per_s']:.2f}",
        ]
        for row in part["rows"]
    ]
    head = ("engine", "seconds with start", "images per second", "after the first images", "ratio")
    killed = (
        f"A worker was killed with SIGKILL after {part['killed_at']:,} images; workers started: "
        f"{part['workers_started']}. "
        if "killed_at" in part
        else ""
    )
    title = (
        f"Prediction of {part['images']:,} images of {part['image_px']} px, {part['detections']:,} "
        f"detections. {killed}On Ray, predictions that are missing: {part['missing']}; that differ from one "
        f"thread of one process: {part['unequal']}. {_load(part)}"
    )
    return f"{title}\n\n{markdown_table(head, rows)}"


def _torchrun(part: Result) -> str:
    first = part["rows"][0]
    rows = [
        [
            f"{row['processes']} x {row['threads']} threads",
            str(row["steps"]),
            f"{row['seconds']:.1f}",
            f"{first['seconds'] / row['seconds']:.2f}",
            f"{sum(row['losses'].values()):.6f}",
        ]
        for row in part["rows"]
    ]
    head = ("processes", "steps", "seconds of the steps", "speed-up", "sum of the smoothed losses")
    title = (
        f"Training on batches of {part['batch']} images of {part['image_px']} px, fp32. Largest difference "
        f"of torchrun from one thread of one process: losses {part['max_loss_difference']:.1e}, weights "
        f"{part['max_weight_difference']:.1e}; of all cores from one thread: weights "
        f"{part['max_weight_difference_threads']:.1e}. {_load(part)}"
    )
    return f"{title}\n\n{markdown_table(head, rows)}"


def _load(part: Result) -> str:
    return f"Load average of the machine at the end: {part['load'][0]:g}."


_TABLES: dict[str, Callable[[Result], str]] = {
    "overhead": _overhead,
    "ray": _ray,
    "ray_killed": _ray,
    "torchrun": _torchrun,
}
