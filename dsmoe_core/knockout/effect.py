"""mAP that a trained detector loses when one of its parts is neutralised, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.errors import SettingsError
from dsmoe_core.evaluation.bootstrap import (
    Comparison,
    compare,
    mean_over_classes,
    resample_counts,
    resampled_map,
)
from dsmoe_core.evaluation.coco_metrics import coco_tables
from dsmoe_core.knockout.parts import Knockout, knocked_out, knockouts
from dsmoe_core.network import DSMoE
from dsmoe_core.predict import Detector
from dsmoe_core.progress import CountCallback
from dsmoe_core.runtimes.eager import EagerRuntime
from dsmoe_core.schema import LabelledImage, Prediction

MIN_SCORE = 0.001
"""Minimum score of the detections that are evaluated."""


class Evaluated(NamedTuple):
    """mAP@.5 and mAP@.5:.95 of one set of predictions, on the images and in each of b resamples."""

    mean: tuple[float, float]
    resampled: Any


class Effect(NamedTuple):
    """What one knock-out costs.

    Attributes:
        knockout: the part.
        map50, map: mAP@.5 and mAP@.5:.95 without the part.
        lost50, lost: mAP of the whole network minus mAP without the part; None if undefined in all resamples.
    """

    knockout: Knockout
    map50: float
    map: float
    lost50: Comparison | None
    lost: Comparison | None

    @property
    def carries(self) -> bool:
        """Whether taking the part away costs mAP@.5, with the whole interval above 0."""
        return self.lost50 is not None and self.lost50.ci95[0] > 0


class KnockoutResult(NamedTuple):
    """mAP of the whole network, its predictions by image key, and the effect of each part."""

    map50: float
    map: float
    predictions: dict[str, Prediction]
    effects: list[Effect]


def find_full_network(detector: Detector) -> DSMoE | None:
    """The network of a detector; None if PyTorch does not run it, or it is of ablation rows A to D."""
    runtime = detector.model.runtime
    network = runtime.network if isinstance(runtime, EagerRuntime) else None
    return network if isinstance(network, DSMoE) else None


def full_network(detector: Detector) -> DSMoE:
    """The network of a detector that PyTorch runs.

    Raises:
        SettingsError: another runtime runs it, or it lacks stages (ablation rows A to D).
    """
    network = find_full_network(detector)
    if network is None:
        raise SettingsError(
            "the model has no ten stages that could be knocked out; expected a full DS-MoE run by PyTorch",
            "Give the folder of a model of ablation row E (the default) or F, not an export.",
        )
    return network


def measure_effects(
    detector: Detector,
    truth: Sequence[LabelledImage],
    classes: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    names: Sequence[str] | None = None,
    seed: int = 0,
    progress: CountCallback | None = None,
) -> KnockoutResult:
    """Evaluate a detector as it is and without each of its parts.

    The intervals are expanded percentile intervals, so that few groups do not make them too narrow.

    Args:
        detector: with its vocabulary set.
        classes: every class of the truth and of the predictions.
        groups: of each image, such as its board design; None: every image is a group of its own.
        resamples: bootstrap resamples of the groups.
        names: knock-outs to measure; None: all.
        seed: of the resamples, the random experts and the shuffled positions.
        progress: called with (evaluations done, evaluations in total).

    Raises:
        SettingsError: the detector has no full network, or all images are of one group.
    """
    network = full_network(detector)
    units = len(truth) if groups is None else len(set(groups))
    if units < 2:
        raise SettingsError(
            f"the {len(truth)} images are of {units} group; expected at least two groups to resample",
            "Take more images, or a pattern (--by) that separates them.",
        )
    counts = resample_counts(len(truth), resamples, seed, groups)
    parts = [k for k in knockouts(network, seed) if names is None or k.name in names]
    report = progress or (lambda _done, _total: None)
    images = [labelled.image for labelled in truth]

    def predict() -> dict[str, Prediction]:
        return {p.key: p for p in detector.predict(images, min_score=MIN_SCORE)}

    predictions = predict()
    whole = _evaluate(predictions, truth, classes, counts)
    report(1, len(parts) + 1)
    effects = []
    for done, part in enumerate(parts, start=2):
        with knocked_out(network, part):
            without = _evaluate(predict(), truth, classes, counts)
        lost50, lost = (
            compare(
                whole.mean[i] - without.mean[i], whole.resampled[:, i], without.resampled[:, i], units=units
            )
            for i in range(2)
        )
        effects.append(Effect(part, *without.mean, lost50, lost))
        report(done, len(parts) + 1)
    return KnockoutResult(*whole.mean, predictions, effects)


def _evaluate(
    predictions: dict[str, Prediction],
    truth: Sequence[LabelledImage],
    classes: Sequence[str],
    counts: NDArray[np.int64],
) -> Evaluated:
    tables = coco_tables(predictions, truth, classes)
    return Evaluated(tables.mean() or (0.0, 0.0), mean_over_classes(resampled_map(tables, counts)))
