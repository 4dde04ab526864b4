"""What a check of the promotion gate gets and returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from dsmoe_core.evaluation.paired_predictions import PairedPredictions
from pipelines.label_errors.new_labels import CheckedLabels
from pipelines.settings.gate import GateSettings
from pipelines.workspace.registry import Metrics
from prompts.evaluation_report import TextEvaluationReport


class Outcome(StrEnum):
    """Result of a check; a candidate is promoted only if all checks pass."""

    PASS = "pass"  # noqa: S105  # no password
    FAIL = "fail"
    NOT_ENOUGH_EVIDENCE = "not enough evidence"
    """The test set is too small to tell; the champion stays."""


class Latency(NamedTuple):
    """Milliseconds per image of both models, median over the same images in turn."""

    candidate: float
    champion: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate and the champion, evaluated on the same test set and class book.

    Attributes:
        candidate, champion: metrics on the test set; None if there is no test set.
        paired: the predictions of both models on the test set, the candidate's first; None where a caller has
            metrics only.
        measure_latency: runs both models; None where the models cannot be run.
        class_book_report: evaluation of the published class book; None if it was published without one.
        check_new_labels: searches label errors in the images that only the candidate was trained on; None
            where there is no workspace.
    """

    candidate: Metrics | None
    champion: Metrics | None
    settings: GateSettings
    paired: PairedPredictions | None = None
    measure_latency: Callable[[], Latency] | None = None
    class_book_report: TextEvaluationReport | None = None
    check_new_labels: Callable[[], CheckedLabels] | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of one check.

    Attributes:
        reason: why it has this outcome, with its values, as a clause such as "mAP 0.310 > 0.250".
        values: the numbers that it compared, by name, as JSON values.
    """

    outcome: Outcome
    reason: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {"outcome": str(self.outcome), "reason": self.reason, "values": dict(self.values)}


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One check of the gate.

    Attributes:
        description: what a candidate must fulfil, in one sentence.
        needs_test_set: it is not made in a workspace without a test set.
    """

    description: str
    check: Callable[[Comparison], CheckResult]
    needs_test_set: bool = True


def without_predictions(what: str) -> CheckResult:
    """The result of a check that needs the predictions of both models, where there are none."""
    reason = f"{what} cannot be compared without the predictions of both models"
    return CheckResult(Outcome.NOT_ENOUGH_EVIDENCE, reason)
