"""The gate: which candidate becomes champion, and the reason in words."""

from __future__ import annotations

from pipelines.workspace.registry import Metrics


def verdict(
    candidate: Metrics | None, champion: Metrics | None, *, first: bool, min_gain: float = 0.0
) -> tuple[bool, str]:
    """Promote only what is better in mAP@.5:.95 on the same test set; with the reason in words."""
    if candidate is None:
        return True, "promoted: there is no test set to judge it on"
    if first or champion is None:
        return True, f"promoted: first model, mAP {candidate.map:.3f}"
    more = f" + {min_gain:.3f}" if min_gain else ""
    if candidate.map > champion.map + min_gain:
        return True, f"promoted: mAP {candidate.map:.3f} > {champion.map:.3f}{more}"
    return False, f"refused: mAP {candidate.map:.3f} is not above the champion's {champion.map:.3f}{more}"
