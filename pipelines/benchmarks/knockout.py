"""Effect of each part of a trained model (knockout.json) and specialisation of its experts (routing.json)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsmoe_core.errors import SettingsError
from dsmoe_core.evaluation.bootstrap import Comparison
from dsmoe_core.evaluation.specialisation import Specialisation
from dsmoe_core.knockout.effect import Effect, KnockoutResult, full_network, measure_effects
from dsmoe_core.knockout.routing import measure_specialisation
from dsmoe_core.predict import Detector
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import LabelledImage
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.evaluation.report.evaluated_model import EvaluatedModel

Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KnockoutSettings:
    """Settings of a measurement.

    Attributes:
        resamples: bootstrap resamples of the images.
        permutations: of the test whether experts and classes share information.
        seed: of resamples, permutations, random experts and shuffled positions.
    """

    resamples: int = 1000
    permutations: int = 200
    seed: int = 0


def open_detector(model: EvaluatedModel) -> Detector:
    """The detector of a DS-MoE model, with the vocabulary to evaluate.

    Raises:
        SettingsError: the model is not a full DS-MoE that PyTorch runs.
        ModelError: there is no model in the folder, or it does not fit.
    """
    backend = model.detector
    if not isinstance(backend, DSMoEBackend):
        raise SettingsError(
            f"model {model.name} is not a DS-MoE detector, so it has no stages to knock out",
            "Give a model that dsmoe trained.",
        )
    detector = Detector.load(model.folder, backend.text_encoder)
    detector.set_vocabulary(model.vocabulary)
    full_network(detector)
    return detector


def measure_knockouts(
    model: EvaluatedModel,
    truth: Sequence[LabelledImage],
    settings: KnockoutSettings,
    *,
    groups: Sequence[str] | None = None,
    progress: CountCallback | None = None,
) -> tuple[Plain, Plain]:
    """Content of knockout.json and of routing.json.

    Args:
        truth: annotated images with the model's class names.
        groups: of each image; whole groups are resampled, and the experts are compared with them.
        progress: called with (evaluations done, evaluations in total).

    Raises:
        SettingsError: the model is not a full DS-MoE that PyTorch runs, or all images are of one group.
    """
    detector = open_detector(model)
    classes = model.vocabulary.names
    result = measure_effects(
        detector,
        truth,
        classes,
        groups=groups,
        resamples=settings.resamples,
        seed=settings.seed,
        progress=progress,
    )
    routing = measure_specialisation(
        detector,
        truth,
        classes,
        groups=groups,
        permutations=settings.permutations,
        seed=settings.seed,
    )
    head: Plain = {
        "model": model.version,
        "images": len(truth),
        "boxes": sum(len(labelled.annotations) for labelled in truth),
        "boxes_by_class": dict(Counter(a.label for labelled in truth for a in labelled.annotations)),
        "groups": None if groups is None else len(set(groups)),
    }
    return head | _effects(result, settings), head | _routing(routing, settings)


def _effects(result: KnockoutResult, settings: KnockoutSettings) -> Plain:
    return {
        "resamples": settings.resamples,
        "map50": result.map50,
        "map": result.map,
        "rows": [_effect(effect) for effect in result.effects],
    }


def _effect(effect: Effect) -> Plain:
    return {
        "name": effect.knockout.name,
        "description": effect.knockout.description,
        "map50": effect.map50,
        "map": effect.map,
        "lost50": _comparison(effect.lost50),
        "lost": _comparison(effect.lost),
        "carries": effect.carries,
    }


def _comparison(comparison: Comparison | None) -> Plain | None:
    return None if comparison is None else {**comparison._asdict(), "ci95": list(comparison.ci95)}


def _routing(routing: Specialisation | None, settings: KnockoutSettings) -> Plain:
    if routing is None:
        return {"experts": 0}
    return {
        "permutations": settings.permutations,
        "experts": len(routing.leading),
        "classes": list(routing.classes),
        "weights": routing.weights.round(4).tolist(),
        "leading": routing.leading.round(4).tolist(),
        "idle": list(routing.idle),
        "by_class": routing.by_class._asdict(),
        "by_group": None if routing.by_group is None else routing.by_group._asdict(),
    }
