"""Cells of a grid at the centres of boxes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def centre_cells(boxes: Float[Tensor, "f 4"], grid: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Row and column of the cell of a grid at each box's centre.

    Args:
        boxes: in pixels of the letterboxed image.
        grid: its last two axes are rows and columns.
        side: of the letterboxed image in pixels.
    """
    size = boxes.new_tensor([grid.shape[-1], grid.shape[-2]])
    cells = ((boxes[:, :2] + boxes[:, 2:]) / 2 / side * size).long().clamp_min(0)
    column, row = torch.minimum(cells, size.long() - 1).unbind(1)
    return row, column
