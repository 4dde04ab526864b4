"""What came back: from a Label Studio task with annotations to a Harvest with every box's outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from annotate.studio.convert import readable_regions
from annotate.studio.protocol import Region
from dsmoe_core.schema import Annotation, Box, Harvest, Outcome

_SAME_PX = 0.05  # the page turns a box into screen pixels and back: a corner this near did not move


def read(rows: Iterable[Mapping[str, Any]], since: datetime | None = None) -> list[Harvest]:
    """Harvests of all annotated rows that changed since then, oldest first. Drafts do not count."""
    found = [harvest for row in rows if (harvest := harvest_of(row)) is not None]
    found = [h for h in found if since is None or h.updated_at >= since]
    return sorted(found, key=lambda h: (h.updated_at, h.annotation_id))


def harvest_of(row: Mapping[str, Any]) -> Harvest | None:
    """The newest annotation of one task; None where it has none or is no task of ours.

    A region that cannot be read is left out with a warning; the rest counts.
    """
    data, annotations = row["data"], row.get("annotations") or []
    if "key" not in data or not annotations:
        return None
    newest = max(annotations, key=lambda a: (datetime.fromisoformat(a["updated_at"]), int(a["id"])))
    skipped = bool(newest.get("was_cancelled"))
    width, height = int(data["width"]), int(data["height"])
    regions = [] if skipped else readable_regions(newest["result"], width, height, f"task {row['id']}")
    shown = _parent(newest, regions, row.get("predictions") or [])
    before = readable_regions(shown["result"], width, height, f"task {row['id']}") if shown else []
    return Harvest(
        key=str(data["key"]),
        annotations=tuple(Annotation(r.box, r.label) for r in regions),
        annotation_id=int(newest["id"]),
        updated_at=datetime.fromisoformat(newest["updated_at"]),
        skipped=skipped,
        outcomes=dict.fromkeys(Outcome, 0) if skipped else outcomes(before, regions),
        version=str(shown["model_version"]) if shown else None,
        seconds=float(newest["lead_time"]) if newest.get("lead_time") is not None else None,
    )


def outcomes(shown: Sequence[Region], left: Sequence[Region]) -> dict[Outcome, int]:
    """How many of the boxes shown were accepted, moved, relabelled or deleted, and how many were added.

    Boxes are told by their ids. One that was moved *and* relabelled counts once, as relabelled: the class
    was wrong, which is the graver mistake. One changed and changed back counts as accepted. So accepted +
    moved + relabelled + deleted is the number shown; less the deleted, plus the added, the number left.
    """
    counts = dict.fromkeys(Outcome, 0)
    before = {region.id: region for region in shown}
    for region in left:
        counts[_outcome(before.pop(region.id, None), region)] += 1
    counts[Outcome.DELETED] = len(before)
    return counts


def _outcome(shown: Region | None, left: Region) -> Outcome:
    if shown is None:
        return Outcome.ADDED
    if left.label != shown.label:
        return Outcome.RELABELLED
    if left.origin == "prediction" or _same(left.box, shown.box):
        return Outcome.ACCEPTED
    return Outcome.MOVED


def _same(one: Box, other: Box) -> bool:
    return all(abs(a - b) <= _SAME_PX for a, b in zip(one.corners, other.corners, strict=True))


def _parent(
    annotation: Mapping[str, Any], regions: Sequence[Region], predictions: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The prediction this annotation began as: the one it names, else one whose region ids it still has."""
    named = [p for p in predictions if p["id"] == annotation.get("parent_prediction")]
    if named:
        return named[0]
    ids = {region.id for region in regions}
    newest_first = sorted(predictions, key=lambda p: int(p["id"]), reverse=True)
    return next((p for p in newest_first if any(r.get("id") in ids for r in p["result"])), None)
