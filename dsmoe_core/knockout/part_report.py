"""Report on the use of a trained model. Does not import torch."""

from __future__ import annotations

from dsmoe_core.config import Frozen


class PartReport(Frozen):
    """Which parts of a model are in use, measured on some images of the test set.

    Attributes:
        images: number of images.
        lost50: mAP@.5 lost when a part is neutralised, by its name (dsmoe_core/knockout/parts.py).
        unused: names of the parts without effect: the 95 % interval of the loss is not above 0.
        idle_experts: indices of the experts that lead at no true box.
        class_information: share of the information about the class of a box that its leading expert has; None
            without a router.
    """

    images: int
    lost50: dict[str, float]
    unused: tuple[str, ...]
    idle_experts: tuple[int, ...]
    class_information: float | None
