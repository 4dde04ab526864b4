"""Approval of the next retraining by a person, if ``policy.approval`` is set.

Candidates that the promotion gate holds are in the model registry.
"""

from __future__ import annotations

from datetime import UTC, datetime

from dsmoe_core.errors import WorkspaceError
from pipelines.workspace.class_books import current_user
from pipelines.workspace.journal import Journal

_RETRAINING = "approved_retraining"


def approved_round(journal: Journal) -> int | None:
    """Number of the round whose retraining was approved last; None if none was."""
    value = journal.value(_RETRAINING)
    return None if value is None else int(value["round"])


def approve_retraining(journal: Journal, reason: str) -> int:
    """Approve the retraining of the open round.

    Returns:
        The number of the round.

    Raises:
        WorkspaceError: no round is open.
    """
    rounds = journal.rounds()
    if not rounds or rounds[-1].state == "closed":
        raise WorkspaceError("no round is open that could be approved", "Open one with `dsmoe round open`.")
    number = rounds[-1].round
    at = datetime.now(UTC).isoformat(timespec="seconds")
    journal.set_value(_RETRAINING, {"round": number, "by": current_user(), "reason": reason, "at": at})
    return number
