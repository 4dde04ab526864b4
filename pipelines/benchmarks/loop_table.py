"""Table of the benchmark of unattended rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsmoe_core.plain_text import escape_markdown
from pipelines.benchmarks.markdown import markdown_table, percent, score


def loop_table(result: Mapping[str, Any]) -> str:
    """One row for each round, also the bad one, and a paragraph with the other parts that were measured."""
    bad = result.get("bad_round")
    rows = [_row(str(row["round"]), row) for row in result["unattended"]["rounds"]]
    if bad:
        rows.append(_row(f"{bad['round']}, {percent(bad['wrong_share'])} of its boxes wrong", bad))
    head = (
        "round",
        "images",
        "boxes",
        "champion mAP@.5",
        "candidate mAP@.5",
        "decision",
        "training s",
        "round s",
    )
    return "\n\n".join([_title(result), markdown_table(head, rows), *_other_parts(result)])


def _title(result: Mapping[str, Any]) -> str:
    plan, part = result["plan"], result["unattended"]
    return (
        f"{escape_markdown(plan['data'])}, {part['pool']} images in the pool, "
        f"{part['test_images']} test images; {plan['px']} px, "
        f"{plan['images_seen']} images seen in each training."
    )


def _row(name: str, row: Mapping[str, Any]) -> list[str]:
    return [
        name,
        str(row["images"]),
        str(row["boxes"]),
        score(row["champion_map50"]),
        score(row["candidate_map50"]),
        escape_markdown(row["reason"]),
        str(row["training_seconds"]),
        str(row["round_seconds"]),
    ]


def _other_parts(result: Mapping[str, Any]) -> list[str]:
    sentences = []
    if rollback := result.get("rollback"):
        newest = rollback["after"]["newest"]
        shown = newest.get(rollback["earlier"], 0)
        sentences.append(
            f"Rollback: {shown} of {sum(newest.values())} open tasks have pre-annotations of the earlier "
            f"model, {rollback['blind']} are shown none (blind audit)."
        )
    if chance := result.get("chance"):
        sentences.append(
            f"By chance: {chance['promoted']} of {chance['trials']} candidates were promoted, "
            f"{chance['candidate_higher']} had the higher mAP@.5:.95; {chance['trainings']} trainings "
            f"that differ by their seed, {chance['images']} test images drawn for each comparison."
        )
    return sentences
