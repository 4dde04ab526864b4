"""Comparison of two models of a workspace on its test set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsmoe_core.errors import SettingsError
from dsmoe_core.evaluation.paired_predictions import METRICS, Difference
from dsmoe_core.progress import CountCallback
from pipelines.detectors.registry import detector_backend
from pipelines.rounds.candidate_evaluation import CandidateEvaluation
from pipelines.settings.environment import Environment
from pipelines.workspace.registry import CHAMPION
from pipelines.workspace.workspace import Workspace


def compare_models(workspace: Workspace, first: str, second: str, progress: CountCallback) -> dict[str, Any]:
    """Paired differences, first minus second, with intervals, in total and for each class.

    Args:
        first, second: ids of models, or ``champion``.
        progress: called with (images or resamples done, in total).

    Returns:
        ``first``, ``second``, ``images``, ``confidence``, ``total`` and ``classes``, as JSON values.

    Raises:
        ModelError: there is no such model.
        SettingsError: the workspace has no test set.
    """
    names = [(workspace.champion() or CHAMPION) if name == CHAMPION else name for name in (first, second)]
    models = [workspace.registry.card(name).id for name in names]
    detector = detector_backend(workspace, Environment.read())
    evaluation = CandidateEvaluation(workspace, detector, progress)
    if not evaluation.truth():
        raise SettingsError(
            f"{workspace.path} has no test set to compare models on",
            "Compare model folders on annotated images with `dsmoe evaluate --against`.",
        )
    paired = evaluation.compare(*models)
    total = {
        name: paired.mean_difference(name) for name in METRICS[:2]
    } | paired.operating_point_differences()
    return {
        "first": models[0],
        "second": models[1],
        "images": len(paired.truth),
        "confidence": paired.confidence,
        "total": _known(total),
        "classes": {
            label: {
                "boxes": boxes,
                "metrics": _known({name: paired.class_difference(label, name) for name in METRICS[:2]}),
            }
            for label, boxes in paired.boxes.items()
            if boxes
        },
    }


def _known(differences: Mapping[str, Difference | None]) -> dict[str, Any]:
    """The differences that are defined, as JSON values."""
    return {name: d._asdict() for name, d in differences.items() if d is not None}
