"""All uncertainty scores of the detections of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from dsmoe_core.runtimes.protocol import RuntimeOutput
from dsmoe_core.suppression import NMS_IOU, KeptBoxes
from dsmoe_core.uncertainty.class_distribution import class_scores
from dsmoe_core.uncertainty.description import TextColumns, text_doubt
from dsmoe_core.uncertainty.localisation import box_spread
from dsmoe_core.uncertainty.novelty import KnownFeatures, box_features
from dsmoe_core.uncertainty.routing import expert_disagreement, router_entropy
from dsmoe_core.uncertainty.score_kinds import (
    CLASS,
    CLASS_MARGIN,
    DESCRIPTION,
    LOCALISATION,
    NOVELTY,
    NOVELTY_OTHER,
    ROUTING,
    ROUTING_ENTROPY,
)


@dataclass(frozen=True)
class DetectionScorer:
    """Computes the scores of ``score_kinds.py`` that the model, the class book and the runtime allow.

    Attributes:
        columns: which columns of the logits are classes, and which single texts.
        side: of the letterboxed image in pixels.
        names: of the classes of the class book.
        known: features of training boxes of these classes; None: no novelty.
    """

    columns: TextColumns
    side: int
    names: tuple[str, ...]
    known: KnownFeatures | None = None

    def score(
        self, kept: KeptBoxes, probabilities: Float[Tensor, "N c"], output: RuntimeOutput, index: int
    ) -> list[dict[str, float]]:
        """The scores of each detection by name; a score that is not defined for a detection is left out.

        Args:
            kept: the detections of an image.
            probabilities: of all classes in all cells of the image.
            output: of the batch of the image.
            index: of the image in the batch.
        """
        scores = kept.probabilities.gather(1, kept.labels[:, None])[:, 0]
        boxes = output.boxes[index]
        by_class = class_scores(kept.probabilities.double().cpu().numpy(), kept.labels.cpu().numpy())
        arrays: dict[str, Float[np.ndarray, " f"]] = {
            CLASS: by_class.entropy,
            CLASS_MARGIN: by_class.margin,
            LOCALISATION: _array(
                box_spread(kept.boxes, kept.labels, scores, probabilities, boxes, nms_iou=NMS_IOU)
            ),
        }
        if self.columns.owner:
            at_cells = output.logits[index][kept.cells]
            arrays[DESCRIPTION] = _array(text_doubt(at_cells, kept.labels, self.columns))
        if self.known is not None:
            features = box_features(output.features[index], kept.boxes, self.side)
            novelty = self.known.novelty(features, [self.names[i] for i in kept.labels.tolist()])
            arrays |= {NOVELTY: _array(novelty.nearest), NOVELTY_OTHER: _array(novelty.other)}
        if output.routing is not None:
            arrays[ROUTING_ENTROPY] = _array(router_entropy(output.routing, index, kept.boxes, self.side))
        if output.next_experts is not None:
            arrays[ROUTING] = _array(
                expert_disagreement(output.next_experts, index, kept.cells, kept.labels, kept.boxes, scores)
            )
        return [_finite(arrays, row) for row in range(len(kept.labels))]


def _array(values: Tensor) -> Float[np.ndarray, " f"]:
    array: Float[np.ndarray, " f"] = values.double().cpu().numpy()
    return array


def _finite(arrays: Mapping[str, Float[np.ndarray, " f"]], row: int) -> dict[str, float]:
    values = {name: float(array[row]) for name, array in arrays.items()}
    return {name: value for name, value in values.items() if np.isfinite(value)}
