"""The table of uncertainty.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsmoe_core.plain_text import escape_markdown
from pipelines.benchmarks.markdown import markdown_table

_BASELINES = {"beats_chance": "chance", "beats_entropy": "entropy", "beats_low_score": "1 - score"}


def uncertainty_table(result: Mapping[str, Any]) -> str:
    """One row for each score, and the rank correlations below."""
    images = result["images_scores"]
    scored = {**result["scores"], "missed (image)": images["missed"]}
    rows = [
        [
            name,
            row.get("addressee", "annotator"),
            f"{row['errors']} of {row['samples']}",
            _with_interval(row["auroc"], row["ci95"]),
            _number(row["entropy"]),
            _number(row.get("low_score")),
            better_than(row),
            _number(row["ece"]),
        ]
        for name, row in scored.items()
    ]
    head = ("score", "addressee", "errors", "AUROC [95 %]", "entropy", "1 - score", "better than", "ECE")
    title = (
        f"{escape_markdown(result['model'])}: {result['images']} images, {result['boxes']} boxes, "
        f"{result['detections']} detections from 0.05 on; known features from {result['known']['images']} "
        "training images\n\n"
    )
    return "\n\n".join([title + markdown_table(head, rows), *_sentences(result)])


def better_than(row: Mapping[str, Any]) -> str:
    """The baselines that the whole interval of the gain is above."""
    return ", ".join(name for key, name in _BASELINES.items() if row.get(key)) or "none"


def _sentences(result: Mapping[str, Any]) -> list[str]:
    sentences = [
        f"Rank correlation of `localisation` with 1 - IoU, detections from {row['min_score']:g} on: "
        f"{_with_interval(row['spearman'], row['ci95'])}; entropy {_number(row['entropy'])}, 1 - score "
        f"{_number(row['low_score'])}."
        for row in result["localisation_spearman"]
    ]
    corrections = result["images_scores"]["corrections"]
    sentences.append(
        f"Expected corrections of an image: {corrections['mean_expected']:.1f}, actual "
        f"{corrections['mean_actual']:.1f}; rank correlation "
        f"{_with_interval(corrections['spearman'], corrections['ci95'])}, of the summed entropy "
        f"{_number(corrections['entropy'])}."
    )
    left_out = ", ".join(
        f"{escape_markdown(row['class'])} {_number(row['auroc'])} ({_number(row['entropy'])})"
        for row in result["novelty_per_class"]
    )
    sentences.append(f"AUROC of `novelty` (and of entropy) by the class that is left out: {left_out}.")
    if unseen := result.get("unseen_class"):
        values = "; ".join(
            f"among {group} "
            + ", ".join(
                f"`{name}` {_with_interval(row['auroc'], row['ci95'])} ({row['errors']} of {row['samples']}; "
                f"entropy {_number(row['entropy'])}, 1 - score {_number(row['low_score'])})"
                for name, row in ((name, rows[key]) for name, rows in unseen["scores"].items())
            )
            for key, group in (("all", "all detections"), ("on_objects", "those on objects"))
        )
        sentences.append(
            f"A model that was trained without {escape_markdown(unseen['class'])}, AUROC for detections on "
            f"its {unseen['boxes']} boxes: {values}."
        )
    if planted := result.get("planted_descriptions"):
        rows = ", ".join(
            f"{escape_markdown(row['class'])} {_with_interval(row['auroc'], row['ci95'])} "
            f"({_number(row['auroc_with_right_description'])})"
            for row in planted
        )
        first = sum(row["place"] == 1 for row in planted)
        first_before = sum(row["place_with_right_description"] == 1 for row in planted)
        sentences.append(
            "One class at a time with the description of another class, AUROC of `description` for "
            f"detections of that class (and with the right description): {rows}. The class has the highest "
            f"mean score in {first} of {len(planted)} cases, with the right description in {first_before}."
        )
    if "other_data" in result:
        other = result["other_data"]
        values = ", ".join(f"`{name}` {_number(row['auroc'])}" for name, row in other["scores"].items())
        entropy = _number(next(iter(other["scores"].values()))["entropy"])
        sentences.append(
            f"AUROC of {other['images']} images of another data set, with {other['detections']} detections, "
            f"by the mean of an image: {values}; summed entropy {entropy}."
        )
    cost = result["relative_cost"]
    sentences.append(
        f"Time of a prediction relative to one without scores: {cost['scores']:.2f}; with the next-best "
        f"experts {cost['scores_and_next_experts']:.2f}."
    )
    return sentences


def _with_interval(value: float | None, ends: list[float] | None) -> str:
    return _number(value) + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if value is not None and ends else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
