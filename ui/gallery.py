"""Which pictures the gallery shows, in which order, and why each is worth a look. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from dsmoe_core.cross_class_nms import one_a_place
from dsmoe_core.schema import Finding, Picture, PictureFindings
from ui.snapshot import Snapshot
from ui.tables import classes_of

Wanted = Literal["to label", "labelled", "test set", "all"]
STANDING = {
    "waiting": "not labelled",
    "sent": "with the annotators",
    "labelled": "labelled",
    "test": "test set",
}


def select(snapshot: Snapshot, wanted: Wanted, classes: Collection[str] = ()) -> list[Picture]:
    """The pictures of one kind that show any of these classes, the most uncertain first.

    A picture that the detector has not looked at comes last; equals go by name.

    Args:
        classes: found by the detector or said by people; none chosen means all pictures.
    """
    pictures = {**snapshot.pictures, **{key: known.picture for key, known in snapshot.test.items()}}
    kinds = {
        "to label": {"waiting", "sent"},
        "labelled": {"labelled"},
        "test set": {"test"},
        "all": set(STANDING),
    }[wanted]
    chosen = [
        picture
        for key, picture in pictures.items()
        if snapshot.kind(key) in kinds and (not classes or _shown(snapshot, key) & set(classes))
    ]
    return sorted(chosen, key=lambda p: (-_doubt(snapshot.findings.get(p.key)), p.name))


def reasons(found: PictureFindings | None, least_score: float) -> list[str]:
    """Why a picture is worth a person's time, in words; the strongest reason first."""
    if found is None:
        return ["The detector has not looked at it yet."]
    places = one_a_place(found.findings)
    shown = [f for f in places if f.score >= least_score]
    said = [_question(f) for f in sorted(shown, key=lambda f: -f.entropy)[:2]]
    faint = [f for f in places if f.score < least_score]
    if faint:
        best = max(faint, key=lambda f: f.score)
        noun = "place" if len(faint) == 1 else "places"
        said.append(f"{len(faint)} more {noun} too faint to show, best {best.label} {best.score:.0%}")
    return said or ["The detector sees no defect here."]


def pages(count: int, size: int) -> int:
    """How many pages so many pictures take; at least one."""
    return max(1, -(-count // size))


def _question(finding: Finding) -> str:
    other = finding.second_best
    if other and other[1] >= 0.01:
        return f"{finding.label} {finding.score:.0%}, or {other[0]} {other[1]:.0%}"
    return f"{finding.label} {finding.score:.0%}"


def _shown(snapshot: Snapshot, key: str) -> set[str]:
    return classes_of(snapshot, key, "findings") | classes_of(snapshot, key, "annotations")


def _doubt(found: PictureFindings | None) -> float:
    return float("-inf") if found is None else found.uncertainty
