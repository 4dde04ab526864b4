"""Losses of a student network towards a teacher network: cross-task consistent distillation.

Source: Yang et al., "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection",
ICCV 2023 (BCKD). A softmax over classes ignores the absolute scores of a dense detector, which come from
independent sigmoids. So the logits are distilled as C independent binary maps. Both networks must have the
same cells, in the same order.

Paper: both losses are computed for a scale level only if the batch has a positive cell in it. We: the class
loss is computed for all cells, and the box loss in a batch with a positive cell. So the parts of a batch add
up to the whole (``losses.BatchCounts``).
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from dsmoe_core.assign import FlatPredictions
from dsmoe_core.config import LossWeights
from dsmoe_core.losses import BatchCounts, widened


def distillation_losses(
    student: FlatPredictions, teacher: FlatPredictions, counts: BatchCounts, weights: LossWeights
) -> dict[str, Float[Tensor, ""]]:
    """Compute the weighted losses ``teacher_class`` and ``teacher_box`` of a batch or a part of one.

    With p = sigmoid(logit) and w = ``|p_t - p_s|``, the class loss is ``sum w BCE(p_s, p_t)`` over cells and
    classes. The box loss is ``sum max_j(w_j) (1 - GIoU(b_s, b_t))`` over cells, in which w is a constant: the
    boxes cannot lower the loss by a change of the class scores. Both are divided by the number of positive
    cells of the whole batch. Gradients flow to the student only.

    Args:
        student, teacher: predictions on the same images, of the same classes in the same order. Without a
            class, both losses are 0.
        counts: counts over the whole batch.
        weights: weights of the losses.
    """
    if not student.logits.shape[-1]:
        zero = student.boxes.sum() * 0.0
        return {"teacher_class": zero, "teacher_box": zero}
    target = teacher.logits.detach().sigmoid()
    gap = (target - student.logits.sigmoid()).abs()
    entropy = F.binary_cross_entropy_with_logits(student.logits, target, reduction="none")
    distance = gap.detach().amax(-1) * giou_loss(student.boxes, teacher.boxes.detach())
    positives = counts.positives.clamp_min(1.0)
    has_positives = (counts.positives > 0).to(distance.dtype)
    return {
        "teacher_class": weights.teacher_class * (gap * entropy).sum() / positives,
        "teacher_box": weights.teacher_box * has_positives * distance.sum() / positives,
    }


def giou_loss(predicted: Float[Tensor, "*n 4"], target: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Compute 1 - GIoU of every pair of boxes (Rezatofighi et al., 2019), from 0 to 2.

    It is finite also for boxes without width or height, which are widened as in ``losses.ciou_loss``.
    """
    loss: Tensor = generalized_box_iou_loss(widened(predicted), widened(target), reduction="none")
    return loss
