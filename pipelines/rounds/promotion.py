"""The last steps of closing a round: evaluation of the candidate, and the decision of the promotion gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.label_errors.new_labels import check_new_labels
from pipelines.rounds.candidate_evaluation import CandidateEvaluation
from pipelines.rounds.context import LoopContext
from pipelines.rounds.gate import Comparison, Decision, decide
from pipelines.settings.gate import GateSettings
from pipelines.workspace.registry import HELD, SHADOW, Metrics
from pipelines.workspace.workspace import Workspace
from prompts.evaluation_report import TextEvaluationReport

SHADOW_DECISION = "shadow decision"
"""Name of the step that decides on the shadow of a round, see shadow.py."""


def evaluate(context: LoopContext, candidate: str) -> dict[str, Any]:
    """Step ``evaluate``: metrics of the candidate and the champion on the test set.

    Returns:
        ``metrics``: by model id, as JSON values; None if there is no test set.
    """
    champion = context.workspace.champion()
    models = [candidate] if champion is None else [candidate, champion]
    evaluation = _evaluation(context)
    metrics = {model: evaluation.metrics(model) for model in models}
    _measure_parts(context, candidate, evaluation)
    return {"metrics": {model: m and m.model_dump(mode="json") for model, m in metrics.items()}}


def _evaluation(context: LoopContext) -> CandidateEvaluation:
    return CandidateEvaluation(context.workspace, context.detector, context.progress.advance)


def _measure_parts(context: LoopContext, model: str, evaluation: CandidateEvaluation) -> None:
    """Write which parts of the model are in use, unless the registry has it or there is no test set."""
    registry = context.workspace.registry
    if registry.parts(model) is not None or not (truth := evaluation.truth()):
        return
    vocabulary = context.workspace.class_book().vocabulary()
    report = context.detector.measure_parts(registry.folder(model), vocabulary, truth)
    if report is not None:
        registry.save_parts(model, report)


def promote(context: LoopContext, number: int, candidate: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Step ``promote``: decide by the promotion gate, and make the candidate champion if it passes.

    It is held for approval, or becomes the shadow of the next round, if the settings say so.

    Args:
        metrics: result of ``evaluate``; it is repeated if another model was made champion since.

    Returns:
        The result that the round is closed with.
    """
    workspace = context.workspace
    champion = workspace.champion()
    if champion is not None and champion not in metrics:
        metrics = evaluate(context, candidate)["metrics"]
    of_candidate = _parse(metrics[candidate])
    prefix = f"round {number}, "
    if champion == candidate:  # by an interrupted run of this step, or by hand
        reason = workspace.registry.history()[-1].reason.removeprefix(prefix)
        decision = Decision("promoted", reason)
    else:
        of_champion = _parse(metrics[champion]) if champion is not None else None
        decision = _decide(context, candidate, champion, of_candidate, of_champion)
        apply_decision(workspace, candidate, decision, prefix)
    result = {
        "counts": (workspace.journal.finished(number, "harvest") or {})["counts"],
        **(workspace.journal.finished(number, "dataset") or {}),
        "model": candidate,
        "promoted": decision.promoted,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "checks": {name: check.to_dict() for name, check in decision.results.items()},
    }
    shadow = workspace.journal.finished(number, SHADOW_DECISION)
    result |= {"shadow": shadow} if shadow else {}
    if of_candidate is not None:
        result |= {"map50": of_candidate.map50, "map": of_candidate.map}
    return result


def _decide(
    context: LoopContext,
    candidate: str,
    champion: str | None,
    of_candidate: Metrics | None,
    of_champion: Metrics | None,
) -> Decision:
    """The decision on a candidate: without checks if there is nothing to compare, else by the gate."""
    workspace = context.workspace
    settings = workspace.settings.gate
    if champion is None:
        reason = f"first model, mAP {of_candidate.map:.3f}" if of_candidate else "first model, no test set"
        return Decision("promoted", f"promoted: {reason}")
    evaluation, compared = _evaluation(context), of_candidate is not None and of_champion is not None
    comparison = Comparison(
        of_candidate,
        of_champion,
        settings,
        paired=evaluation.compare(candidate, champion) if compared else None,
        measure_latency=lambda: evaluation.latency(candidate, champion),
        class_book_report=class_book_report(workspace),
        check_new_labels=lambda: check_new_labels(workspace, candidate, champion),
    )
    return with_shadow_and_approval(decide(comparison), settings)


def class_book_report(workspace: Workspace) -> TextEvaluationReport | None:
    """The evaluation that the published class book was published with; None if there was none."""
    published = workspace.class_book().version
    events = workspace.class_books.store.history()
    reports = [e.report for e in events if e.version == published and e.report is not None]
    return reports[-1] if reports else None


def with_shadow_and_approval(decision: Decision, settings: GateSettings) -> Decision:
    """The decision in shadow mode, or where a person approves promotions."""
    details = decision.reason.removeprefix(f"{decision.verdict}: ")
    if settings.shadow and not decision.failed:
        reason = f"shadow: the next round compares its corrections with the champion's; {details}"
        return replace(decision, verdict="shadow", reason=reason)
    return with_approval(decision, settings)


def with_approval(decision: Decision, settings: GateSettings) -> Decision:
    """The decision where a person approves promotions."""
    if not (settings.approval and decision.promoted):
        return decision
    details = decision.reason.removeprefix("promoted: ")
    return replace(decision, verdict="held", reason=f"held for approval: {details}")


def apply_decision(workspace: Workspace, model: str, decision: Decision, prefix: str) -> None:
    """Record a decision: make the model champion, let it wait, or refuse it.

    Args:
        prefix: of the recorded reason, such as "round 2, ".
    """
    registry, reason = workspace.registry, prefix + decision.reason
    if decision.verdict == "promoted":
        registry.promote(model, reason, class_book=workspace.class_book().version)
    elif decision.verdict == "held":
        registry.wait(model, HELD, reason)
    elif decision.verdict == "shadow":
        registry.wait(model, SHADOW, reason)
    else:
        registry.refuse(model, reason)


def _parse(metrics: Mapping[str, Any] | None) -> Metrics | None:
    return None if metrics is None else Metrics.model_validate(metrics)
