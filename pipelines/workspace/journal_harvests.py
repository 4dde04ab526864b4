"""Harvests as the journal's rows, and which of those that come back are news."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from dsmoe_core.schema import Annotation, Box, Harvest, Outcome


def as_text(moment: datetime) -> str:
    """UTC with microseconds, so that text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def news(harvests: Sequence[Harvest], states: Sequence[Harvest]) -> list[Harvest]:
    """Of what the labelling server says now, what is not known yet; oldest first.

    The server says what holds, whatever its clock says: where that was put back, a change is dated just after
    what it changes. So is a state that was seen before and holds again, as after a backup was restored.

    Args:
        states: every state that is known, oldest first.
    """
    latest = {h.key: h for h in states}
    found = []
    for harvest in sorted(harvests, key=lambda h: (h.updated_at, h.annotation_id)):
        known = latest.get(harvest.key)
        if _says_nothing(harvest, known):
            continue
        moment = harvest.updated_at
        if known is not None and moment <= known.updated_at:
            moment = known.updated_at + timedelta(microseconds=1)
        latest[harvest.key] = replace(harvest, updated_at=moment)
        found.append(latest[harvest.key])
    return found


def _says_nothing(harvest: Harvest, known: Harvest | None) -> bool:
    """Whether it is what is known, or tells of no answer where none was known."""
    if known is None:
        return not harvest.annotators
    return replace(harvest, updated_at=known.updated_at) == known


def harvest_row(harvest: Harvest, source: str) -> dict[str, Any]:
    """For the table of harvests."""
    return {
        "key": harvest.key,
        "annotation_id": harvest.annotation_id,
        "updated_at": as_text(harvest.updated_at),
        "source": source,
        "skipped": harvest.skipped,
        "boxes": [[*a.box.corners, a.label] for a in harvest.annotations],
        "outcomes": {str(outcome): count for outcome, count in harvest.outcomes.items()},
        "version": harvest.version,
        "seconds": harvest.seconds,
    }


def remark_row(harvest: Harvest) -> dict[str, Any]:
    """For the table of remarks."""
    names = ("key", "annotation_id", "doubt", "note", "annotators", "agreement")
    return {name: getattr(harvest, name) for name in names} | {"updated_at": as_text(harvest.updated_at)}


def harvest_of(row: sa.Row[Any]) -> Harvest:
    """From a row of both tables; a harvest without a remark is one annotator's who is sure."""
    return Harvest(
        key=row.key,
        annotations=tuple(Annotation(Box(*map(float, b[:4])), b[4]) for b in row.boxes),
        annotation_id=row.annotation_id,
        updated_at=datetime.fromisoformat(row.updated_at),
        skipped=row.skipped,
        outcomes={Outcome(name): count for name, count in row.outcomes.items()},
        version=row.version,
        seconds=row.seconds,
        doubt=row.doubt,
        note=row.note or "",
        annotators=1 if row.annotators is None else row.annotators,
        agreement=row.agreement,
    )
