"""Shadow mode: a candidate predicts with the champion on the images of a round, and the annotators decide.

The annotations of the round are compared with what each model would have shown. The corrections that each
needs on the same images are counted: boxes to add, to delete and to relabel. Moved boxes are not counted, as
annotators accept the boxes they are shown, which are the champion's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsmoe_core.errors import ModelError
from dsmoe_core.evaluation.bootstrap import expanded_interval, resample_counts
from dsmoe_core.evaluation.matching import UNMATCHED, match_any_class, pairwise_iou
from dsmoe_core.evaluation.paired_predictions import min_units
from dsmoe_core.schema import Annotation, Detection
from pipelines.detectors.pre_annotations import current_pre_annotations
from pipelines.rounds.context import LoopContext
from pipelines.rounds.gate import CheckResult, Decision, Outcome
from pipelines.rounds.promotion import apply_decision, with_approval
from pipelines.settings.gate import GateSettings
from pipelines.workspace.workspace import Workspace

STEP = "shadow"
CHECK = "fewer_corrections"


def predict_with_shadow(context: LoopContext, number: int) -> dict[str, Any]:
    """Step ``shadow``: store the predictions of champion and shadow for the images of a round.

    A shadow that cannot be used is refused.

    Returns:
        Model and prediction version of both; empty if there is no shadow, or no champion.
    """
    workspace = context.workspace
    shadow, champion = workspace.registry.shadow(), workspace.journal.rounds()[number].champion
    if shadow is None or champion is None:
        return {}
    images = workspace.images_by_key()
    chosen = [images[task.key] for task in workspace.journal.tasks(number)]
    try:
        context.ensure_predictions(shadow, chosen)
    except ModelError as error:
        workspace.registry.refuse(shadow, f"round {number}, refused: {error}")
        return {}
    context.ensure_predictions(champion, chosen)
    return {
        "shadow": shadow,
        "champion": champion,
        "versions": [workspace.prediction_version(model) for model in (shadow, champion)],
    }


def decide_shadow(context: LoopContext, number: int) -> dict[str, Any]:
    """Step ``shadow decision``: promote or refuse the shadow by the annotations of a round.

    Returns:
        ``model``, ``verdict``, ``reason`` and ``check``; empty if the round had no shadow, or if it was
        promoted, refused or replaced by hand since.
    """
    workspace = context.workspace
    opened = workspace.journal.finished(number, STEP)
    shadow = workspace.registry.shadow()
    if not opened or shadow is None or shadow != opened["shadow"]:
        return {}
    if workspace.champion() != opened["champion"]:
        return {}
    result = compare_corrections(_corrections(workspace, number, opened["versions"]), workspace.settings.gate)
    verdict = _VERDICTS[result.outcome]
    decision = Decision(verdict, f"{verdict}: as shadow, {result.reason}", {CHECK: result})
    decision = with_approval(decision, workspace.settings.gate)
    apply_decision(workspace, shadow, decision, f"round {number}, ")
    if decision.verdict == "held":
        workspace.registry.end_shadow()
    return {
        "model": shadow,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "check": result.to_dict(),
    }


_VERDICTS: dict[Outcome, Any] = {
    Outcome.PASS: "promoted",
    Outcome.FAIL: "refused",
    Outcome.NOT_ENOUGH_EVIDENCE: "not enough evidence",
}


@dataclass(frozen=True, slots=True)
class ImageCorrections:
    """Corrections that the predictions of both models need on one image.

    Attributes:
        name: of the image.
    """

    name: str
    shadow: int
    champion: int


def _corrections(workspace: Workspace, number: int, versions: Sequence[str]) -> list[ImageCorrections]:
    """The corrections on each labelled image of a round."""
    annotations = workspace.annotations()
    stored = [workspace.prediction_store.lookup(version) for version in versions]
    book = workspace.class_book()
    result = []
    for task in workspace.journal.tasks(number):
        labelled = annotations.get(task.key)
        if labelled is None or any(task.key not in predictions for predictions in stored):
            continue
        shown = [current_pre_annotations(workspace, predictions[task.key], book) for predictions in stored]
        counts = [corrections_needed(s.detections, labelled.annotations) for s in shown]
        result.append(ImageCorrections(labelled.image.name, *counts))
    return result


def corrections_needed(detections: Sequence[Detection], annotations: Sequence[Annotation]) -> int:
    """Number of boxes to delete, add or relabel, so that the detections become the annotations.

    Boxes of the same class at IoU 0.5 are the same; then boxes of different classes, which are relabelled.
    """
    ordered = sorted(detections, key=lambda d: -d.score)
    iou = pairwise_iou([d.box for d in ordered], [a.box for a in annotations])
    same, other = match_any_class(iou, [d.label for d in ordered], [a.label for a in annotations])
    relabelled = int((other != UNMATCHED).sum())
    matched = int((same != UNMATCHED).sum()) + relabelled
    return relabelled + len(ordered) - matched + len(annotations) - matched


def compare_corrections(images: Sequence[ImageCorrections], settings: GateSettings) -> CheckResult:
    """Whether the shadow needs fewer corrections per image than the champion, by a paired bootstrap.

    Images, or groups of ``gate.group_pattern``, are resampled. It passes if the whole interval of the
    difference is below 0, and fails if the difference itself is not.
    """
    groups = [settings.group(image.name) for image in images]
    units, needed = len(set(groups)), min_units(settings.confidence)
    if units < needed:
        reason = f"{units} annotated images or groups; at least {needed} can show a difference"
        return CheckResult(Outcome.NOT_ENOUGH_EVIDENCE, reason, {"units": units, "needed": needed})
    shadow = np.array([image.shadow for image in images], dtype=np.float64)
    champion = np.array([image.champion for image in images], dtype=np.float64)
    counts = resample_counts(len(images), settings.resamples, 0, groups)
    means = counts @ (shadow - champion) / counts.sum(axis=1)
    ends = expanded_interval(means, units, settings.confidence)
    assert ends is not None  # noqa: S101  # a mean is defined in every resample
    delta = float((shadow - champion).mean())
    values = {"shadow": float(shadow.mean()), "champion": float(champion.mean()), "difference": delta}
    values |= {"low": ends[0], "high": ends[1], "images": len(images)}
    reason = f"{values['shadow']:.2f} corrections per image, champion {values['champion']:.2f}, "
    reason += f"difference {delta:+.2f} [{ends[0]:+.2f}, {ends[1]:+.2f}] on {len(images)} images"
    if ends[1] < 0:
        return CheckResult(Outcome.PASS, reason, values)
    return CheckResult(Outcome.FAIL if delta >= 0 else Outcome.NOT_ENOUGH_EVIDENCE, reason, values)
