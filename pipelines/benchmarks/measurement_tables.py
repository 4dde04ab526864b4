"""Tables of the demo, the experts, the runtimes and Label Studio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsmoe_core.plain_text import escape_markdown
from pipelines.benchmarks.markdown import markdown_table, milliseconds, percent, score

GOAL_MS, GOAL_IMAGES_PER_S = 3, 2000
"""Goals of the whole detector on a GPU: latency of one image, and throughput."""
OUTCOMES = ("accepted", "moved", "relabelled", "deleted", "added")


def demo_table(result: Mapping[str, Any]) -> str:
    """One row for each round of the loop."""
    head = ("round", "images", "boxes", *OUTCOMES, "mAP@.5", "mAP@.5:.95", "promoted?")
    rows = [
        [
            str(row["round"]),
            str(row["pictures"]),
            str(row["boxes"]),
            *(percent(row.get(outcome)) for outcome in OUTCOMES),
            score(row.get("map50")),
            score(row.get("map")),
            row.get("reason", "-"),
        ]
        for row in result["rounds"]
    ]
    data = escape_markdown(result["data"])
    title = f"{data}, {result['minutes']:.1f} minutes, annotator: {result['annotator']}\n\n"
    return title + markdown_table(head, rows)


def experts_table(result: Mapping[str, Any]) -> str:
    """Table 5 of the paper; the last column is the ratio to k = 1."""
    first = result["rows"][0]
    rows = [
        [
            str(row["k"]),
            f"{row['ms']:.0f} ({row['ms_quartiles'][0]:.0f} to {row['ms_quartiles'][1]:.0f})",
            f"{row['gflops']:.1f}",
            f"{row['params_m']:.2f}",
            f"{row['ms'] / first['ms']:.2f}",
        ]
        for row in result["rows"]
    ]
    title = (
        f"{result['size']}, {result['image_px']} px, batch {result['batch']}, {result['experts']} experts, "
        f"{result['threads']} threads; median (quartiles) of {result['repeats']}\n\n"
    )
    head = ("active experts k", "ms", "GFLOPs", "weights in use, millions", "time / time at k = 1")
    return title + markdown_table(head, rows)


def latency_table(result: Mapping[str, Any]) -> str:
    """Latency and best throughput of every runtime, and the parity of their detections if measured."""
    rows = []
    for row in (row for row in result["rows"] if row["batch"] == 1):
        same = [r for r in result["rows"] if all(r[k] == row[k] for k in ("device", "runtime", "dtype"))]
        best = max(same, key=lambda r: float(r["pictures_per_s"]))
        low, high = row["ms_quartiles"]
        rows.append(
            [
                f"{row['runtime']}, {row['dtype']}, {row['device']}",
                f"{milliseconds(row['ms'])} ({milliseconds(low)} to {milliseconds(high)})",
                f"{row['ratio_to_eager']:.2f}",
                f"{best['pictures_per_s']:.1f} ({best['batch']})",
            ]
        )
    after, encoder = result["after_encoder_ms"], result["encoder_ms"]
    title = (
        f"{result['size']}, {result['image_px']} px, {result['threads']} threads; median (quartiles) of "
        f"{result['rounds']}. In eager fp32 the encoder takes {encoder:.0f} ms and everything after it "
        f"{after:.0f} ms, {after / encoder:.0%} of that.\n\n"
    )
    head = ("runtime", "ms, one image", "time / eager fp32", "images per second (batch)")
    parts = [title + markdown_table(head, rows), *_gpu_goals(result)]
    if "left_out" in result:
        left_out = "; ".join(
            f"{name}: {escape_markdown(reason)}" for name, reason in result["left_out"].items()
        )
        parts.append(f"Left out: {left_out}.")
    if "findings" in result:
        parts.append(_parity_table(result["findings"]))
    return "\n\n".join(parts)


def _gpu_goals(result: Mapping[str, Any]) -> list[str]:
    """A comparison with the goals and with the peak of the GPU, if one was measured."""
    rows = [row for row in result["rows"] if row["device"] == "cuda"]
    if not rows:
        return []
    latency_ms = min(row["ms"] for row in rows if row["batch"] == 1)
    throughput = max(row["pictures_per_s"] for row in rows)
    return [
        f"Best on the GPU: {milliseconds(latency_ms)} ms for one image (goal: {GOAL_MS}) and "
        f"{throughput:,.0f} images per second (goal: {GOAL_IMAGES_PER_S:,}), {result['share_of_peak']:.1%} "
        f"of the {result['peak_tflops']:.0f} TFLOP/s that a large bf16 product reaches there."
    ]


def _parity_table(parity: Mapping[str, Any]) -> str:
    reference = parity["rows"][0]
    rows = [
        [
            f"{row['runtime']}, {row['dtype']}",
            str(row["findings"]),
            f"{row['matched']:.2%}",
            f"{row['worst_iou']:.4f}",
            f"{row['worst_score']:.4f}",
            score(row["map50"]),
            f"{row['map50'] - reference['map50']:+.3f}",
        ]
        for row in parity["rows"]
    ]
    title = (
        f"Detections compared with eager fp32: {escape_markdown(parity['data'])}, "
        f"{parity['pictures']} images, {parity['size']}, {parity['image_px']} px; matched: IoU at least 0.99 "
        "and score within 0.01.\n\n"
    )
    head = (
        "runtime",
        "detections",
        "matched",
        "lowest IoU",
        "largest score difference",
        "mAP@.5",
        "mAP@.5 - eager fp32",
    )
    return title + markdown_table(head, rows)


def studio_table(result: Mapping[str, Any]) -> str:
    """Import, harvest, smart clicks and concurrent annotators."""
    load = result["back_end"]
    memory_ratio = result["peak_mb_20000"] / result["peak_mb_1000"]
    rows = [
        [f"import of {result['pictures']:,} images, {result['boxes']:,} boxes", f"{result['push_s']:.2f} s"],
        ["harvest of their annotations", f"{result['harvest_s']:.2f} s"],
        ["import of one image in a call of its own", f"{result['one_by_one_ms']:.0f} ms"],
        ["peak memory for 20,000 images / for 1,000 images", f"{memory_ratio:.2f}"],
        ["first click on an image, 95th percentile", f"{result['click_ms_p95']:.0f} ms"],
        ["second click on it, 95th percentile", f"{result['click_again_ms_p95']:.0f} ms"],
        [
            f"request of {load['annotators']} concurrent annotators, {load['seconds']:.0f} s, p95",
            f"{load['p95_ms']:.0f} ms",
        ],
        ["their requests, failed requests", f"{load['requests']:,}, {load['errors']}"],
        [
            "memory of the ML backend after ten seconds, at the end",
            f"{load['rss_mb_settled']:.0f} MB, {load['rss_mb_end']:.0f} MB",
        ],
    ]
    model = result["model"]
    title = f"{model['size']}, {model['image_px']} px, both servers on this machine\n\n"
    return title + markdown_table(("measurement", "value"), rows)


def knockout_table(result: Mapping[str, Any]) -> str:
    """One row for each part: mAP without it, and what that costs."""
    rows = [
        [row["description"], score(row["map50"]), _lost(row["lost50"]), score(row["map"]), _lost(row["lost"])]
        for row in result["rows"]
    ]
    whole = ["the whole network", score(result["map50"]), "-", score(result["map"]), "-"]
    title = (
        f"{escape_markdown(result['model'])}, {result['images']} images"
        + (f" in {result['groups']} groups" if result["groups"] else "")
        + f", {result['resamples']} resamples, {len(result['rows'])} parts\n\n"
    )
    head = ("knock-out", "mAP@.5", "lost [95 %]", "mAP@.5:.95", "lost [95 %]")
    return title + markdown_table(head, [whole, *rows])


def routing_table(result: Mapping[str, Any]) -> str:
    """Weight of each expert at the boxes of each class, and what the leading expert says about the class."""
    experts = range(result["experts"])
    rows = [
        [name, *(f"{weight:.0%}" if any(weights) else "-" for weight in weights)]
        for name, weights in zip(result["classes"], result["weights"], strict=True)
    ]
    rows.append(["leads at", *(f"{share:.0%}" for share in result["leading"])])
    known = result["by_class"]
    title = (
        f"{escape_markdown(result['model'])}, {result['boxes']} boxes. Information of the leading expert "
        f"about the class: {known['share']:.1%} of the entropy, {known['by_chance']:.1%} by chance "
        f"(p = {known['p']:.3f}, {result['permutations']} permutations).\n\n"
    )
    return title + markdown_table(("class", *(f"expert {i + 1}" for i in experts)), rows)


def _lost(comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return "-"
    low, high = comparison["ci95"]
    return f"{comparison['delta']:+.3f} [{low:+.3f}, {high:+.3f}]"


def speed_table(result: Mapping[str, Any]) -> str:
    """Images per second of training and prediction, one row for each encoder and precision."""
    head = ("encoder", "px", "precision", "threads", "training, images/s", "prediction, images/s")
    keys = ("encoder", "image_px", "precision", "threads", "training_images_per_s", "prediction_images_per_s")
    rows = [[escape_markdown(str(row[key])) for key in keys] for row in result["rows"]]
    return f"{result['batch']} images per step.\n\n{markdown_table(head, rows)}"
