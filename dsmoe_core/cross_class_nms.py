"""Findings of several classes on one place brought down to one, for whoever looks at a picture."""

from __future__ import annotations

from collections.abc import Iterable

from dsmoe_core.evaluation.matching import overlaps
from dsmoe_core.schema import Finding

SAME_PLACE = 0.4
"""Findings that overlap so much (intersection over union) are of one place."""


def one_a_place(findings: Iterable[Finding]) -> list[Finding]:
    """Of findings on top of each other the surest alone, of whatever class; highest score first."""
    kept: list[Finding] = []
    for finding in sorted(findings, key=lambda f: -f.score):
        over = overlaps([finding.box], [other.box for other in kept])
        if not (over >= SAME_PLACE).any():
            kept.append(finding)
    return kept
