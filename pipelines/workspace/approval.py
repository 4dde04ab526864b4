"""What waits for a person's approval: the next retraining, and a candidate that the gate holds.

Both are values of the journal. The gate writes and clears ``HELD_CANDIDATE``, the id of the model; as long as
it is set, ``dsmoe watch`` neither retrains nor opens a round.
"""

from __future__ import annotations

from datetime import UTC, datetime

from dsmoe_core.errors import WorkspaceError
from pipelines.workspace.class_books import current_user
from pipelines.workspace.journal import Journal

HELD_CANDIDATE = "held_candidate"
"""Journal value: id of the candidate that waits for approval; null or missing: none does."""
_RETRAINING = "approved_retraining"


def held_candidate(journal: Journal) -> str | None:
    """Id of the candidate that the promotion gate holds for approval; None if it holds none."""
    value = journal.value(HELD_CANDIDATE)
    return None if value is None else str(value)


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
