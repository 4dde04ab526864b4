"""Table of demos next to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from dsmoe_core.plain_text import escape_markdown
from pipelines.benchmarks.markdown import markdown_table

SHARES = ("accepted", "moved", "deleted", "added")


def demos_table(result: Mapping[str, Any]) -> str:
    """One row per data set and variant: mAP@.5 of each round, and what annotators did in the last one.

    Values are means over the seeds, with those of the seeds in brackets. A round whose candidate is refused
    has the candidate's mAP. A round that a data set does not have is a dash.
    """
    sets = {name: value for name, value in result.items() if isinstance(value, Mapping) and "runs" in value}
    rounds = max((len(run["rounds"]) for value in sets.values() for run in value["runs"]), default=0)
    rows = []
    for name, value in sorted(sets.items()):
        for variant in dict.fromkeys(run["variant"] for run in value["runs"]):
            runs = [run for run in value["runs"] if run["variant"] == variant]
            scores = [
                [run["rounds"][i].get("map50") for run in runs if i < len(run["rounds"])]
                for i in range(rounds)
            ]
            shares = [[run["rounds"][-1].get(share) for run in runs] for share in SHARES]
            rows.append(
                [
                    escape_markdown(name),
                    f"{variant}, {len(runs)} seeds",
                    *(_cell(values, "{:.3f}") for values in scores),
                    *(_cell(values, "{:.0%}") for values in shares),
                    f"{mean(run['minutes'] for run in runs):.0f}",
                ]
            )
    head = ("data", "start", *(f"mAP@.5, round {i}" for i in range(rounds)), *SHARES, "minutes in all")
    return markdown_table(head, rows)


def _cell(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    each = ", ".join(form.format(value) for value in known)
    return form.format(mean(known)) + (f" ({each})" if len(known) > 1 else "")
