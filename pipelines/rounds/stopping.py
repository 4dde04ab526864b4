"""Stop signal: whether more labels still change the model.

Two things are looked at: the agreement of successive champions on unlabelled images (Bloodgood and
Vijay-Shanker, "A Method for Stopping Active Learning Based on Stabilizing Predictions", 2009), and the gain
of more boxes by the extrapolated learning curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dsmoe_core.evaluation.bootstrap import expanded_interval, resample_counts
from dsmoe_core.evaluation.learning_curve import Gain, fit_learning_curve
from dsmoe_core.schema import Detection
from pipelines.detectors.pre_annotations import shown_detections
from pipelines.rounds.audit import blind_audit, control_arm, images_of_closed_rounds
from pipelines.rounds.context import LoopContext
from pipelines.rounds.pool import pool
from pipelines.workspace.audit import matches
from pipelines.workspace.round_summary import ChampionAgreement, RoundSummary

AGREEMENT_IMAGES = 50
"""Unlabelled images on which successive champions are compared."""
HORIZON_BOXES = 200
"""Additional boxes whose gain is extrapolated."""
MIN_GAIN = 0.005
"""Gain of mAP@.5:.95 by ``HORIZON_BOXES`` boxes below which labelling can stop."""
MIN_AGREEMENT = 0.9
"""Agreement of successive champions from which on labelling can stop."""
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class StopSignal:
    """Whether labelling can stop.

    Attributes:
        rounds: closed rounds with an evaluated model.
        gain: of mAP@.5:.95 by ``HORIZON_BOXES`` more boxes; None before two such rounds.
        agreement: of the last two champions; None before there were two.
        stop: the upper end of the gain is below ``MIN_GAIN`` and the agreement is not below
            ``MIN_AGREEMENT``; None if one of them is unknown.
    """

    rounds: int
    gain: Gain | None
    agreement: ChampionAgreement | None
    stop: bool | None

    def to_dict(self) -> dict[str, Any]:
        """The signal as JSON values."""
        return asdict(self)


def stop_signal(rows: Sequence[RoundSummary]) -> StopSignal:
    """The stop signal of the closed rounds."""
    closed = [row for row in rows if row.state == "closed"]
    points = [(float(row.boxes), row.map) for row in closed if row.map is not None and row.boxes]
    curve = fit_learning_curve([n for n, _ in points], [value for _, value in points])
    gain = None if curve is None else curve.gain(HORIZON_BOXES)
    agreement = next((row.champions for row in reversed(closed) if row.champions is not None), None)
    stop = None
    if gain is not None and agreement is not None:
        stop = gain.high < MIN_GAIN and agreement.f1 >= MIN_AGREEMENT
    return StopSignal(len(points), gain, agreement, stop)


def stop_sentences(rows: Sequence[RoundSummary]) -> list[str]:
    """The stop signal in words; none before two closed rounds."""
    if sum(row.state == "closed" for row in rows) < 2:
        return []
    signal = stop_signal(rows)
    sentences = []
    if signal.gain is None:
        sentences.append(
            "Stop signal: no learning curve, because fewer than two rounds of different size were evaluated."
        )
    else:
        gain = signal.gain
        sentences.append(
            f"{gain.more} more boxes: {100 * gain.value:+.1f} points of mAP@.5:.95, 95 % "
            f"{100 * gain.low:.1f} to {100 * gain.high:.1f} (extrapolated from {signal.rounds} rounds)."
        )
    if signal.agreement is not None:
        a = signal.agreement
        interval = "" if a.low is None or a.high is None else f", 95 % {a.low:.2f} to {a.high:.2f}"
        sentences.append(
            f"Successive champions {a.before} and {a.after} agree with F1 {a.f1:.2f}{interval}, on "
            f"{a.images} unlabelled images."
        )
    if signal.stop:
        sentences.append("Stop signal: more labels of this kind are not expected to change the model.")
    return sentences


def measure_agreement(context: LoopContext, candidate: str) -> dict[str, Any]:
    """Step ``agreement``: compare a new champion with the model that it was trained from.

    The images are the unlabelled ones with the lowest keys, which are random, so that rounds use the same
    ones until they are labelled.

    Returns:
        ``champions``: see ``ChampionAgreement``; nothing if there is no unlabelled image.
    """
    workspace = context.workspace
    before = workspace.registry.card(candidate).parent
    unlabelled = pool(workspace)
    images = [unlabelled[key] for key in sorted(unlabelled)[:AGREEMENT_IMAGES]]
    if before is None or not workspace.registry.has(before) or not images:
        return {}
    stored = [context.ensure_predictions(model, images) for model in (before, candidate)]
    pairs = [
        [shown_detections(workspace, predictions[image.key]).detections for predictions in stored]
        for image in images
    ]
    scores = np.array([image_agreement(first, second) for first, second in pairs])
    low = high = None
    if len(scores) > 1:
        means = resample_counts(len(scores), RESAMPLES, workspace.settings.seed) @ scores / len(scores)
        low, high = expanded_interval(means, len(scores)) or (None, None)
    agreement = ChampionAgreement(before, candidate, len(images), float(scores.mean()), low, high)
    return {"champions": asdict(agreement)}


def image_agreement(first: Sequence[Detection], second: Sequence[Detection]) -> float:
    """F1 of the detections of two models on an image: same class and an IoU of 0.5 or more; 1 without any."""
    total = len(first) + len(second)
    return 2 * matches(first, second) / total if total else 1.0


def signals(rows: Sequence[RoundSummary]) -> Mapping[str, Any]:
    """Control arm, blind audit and stop signal of the closed rounds, as JSON values."""
    images = images_of_closed_rounds(rows)
    return {
        "control_arm": control_arm(images).to_dict(),
        "blind_audit": blind_audit(images).to_dict(),
        "stop_signal": stop_signal(rows).to_dict(),
    }
