"""Tests of the assignment of head cells to ground-truth boxes."""

from __future__ import annotations

from itertools import product

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import close, random
from torchvision.ops import box_iou

from dsmoe_core.assign import assign, flatten_levels
from dsmoe_core.outputs import LevelOutput

LEVELS = [
    LevelOutput(8, torch.zeros(1, 3, 8, 8), torch.full((1, 4, 8, 8), 8.0)),
    LevelOutput(16, torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4, 4), 16.0)),
]


def test_distances_are_decoded_to_boxes_around_the_cell_centres() -> None:
    """Cells are ordered row by row, the finest level first."""
    sizes = {8: (5, 3), 16: (2, 4)}
    levels = [
        LevelOutput(s, random(2, 3, *size, seed=s), random(2, 4, *size, seed=s + 1).exp() * s)
        for s, size in sizes.items()
    ]
    flat = flatten_levels(levels)
    cells = [(level, y, x) for level in levels for y, x in product(*map(range, sizes[level.stride]))]
    assert flat.boxes.shape[1] == len(cells)
    for i, (level, y, x) in enumerate(cells):
        centre_x, centre_y = (x + 0.5) * level.stride, (y + 0.5) * level.stride
        assert flat.centres[i].tolist() == [centre_x, centre_y]
        assert flat.strides[i] == level.stride
        for b in range(2):
            left, top, right, bottom = level.distances[b, :, y, x]
            box = torch.stack([centre_x - left, centre_y - top, centre_x + right, centre_y + bottom])
            close(flat.boxes[b, i], box, 1e-6)
            close(flat.logits[b, i], level.logits[b, :, y, x], 0)


def test_without_boxes_every_cell_is_negative() -> None:
    flat = flatten_levels(LEVELS)
    targets = assign(
        flat.logits[0].sigmoid(), flat.boxes[0], flat.centres, torch.zeros(0, 4), torch.zeros(0).long()
    )
    assert not targets.positive.any()
    assert not targets.scores.any()


def test_the_label_of_a_box_s_best_cell_is_its_iou() -> None:
    flat = flatten_levels(LEVELS)
    true = flat.boxes[0, [27]] + torch.tensor([0.0, 0.0, 0.0, 4.0])
    targets = assign(flat.logits[0].sigmoid(), flat.boxes[0], flat.centres, true, torch.tensor([2]))
    assert targets.scores[27, 2] == targets.scores.max()
    torch.testing.assert_close(targets.scores[27, 2], torch.tensor(256 / 320))
    assert not targets.scores[:, :2].any()


def test_label_scale_uses_the_cells_that_a_box_keeps() -> None:
    """Two boxes select cell 27. The one that does not get it scales its labels by its best remaining cell."""
    flat = flatten_levels(LEVELS)
    first = flat.boxes[0, [27]]
    boxes = torch.cat([first, first + torch.tensor([-1.0, 0.0, -1.0, 0.0])])
    targets = assign(flat.logits[0].sigmoid(), flat.boxes[0], flat.centres, boxes, torch.tensor([0, 1]))
    overlap = box_iou(boxes, flat.boxes[0])
    for label in range(2):
        cells = targets.scores[:, label] > 0
        assert targets.positive[cells].all()
        torch.testing.assert_close(targets.scores[:, label].max(), overlap[label, cells].max())
    assert targets.scores[27, 0] > 0 == targets.scores[27, 1]


def test_box_weight_of_every_box_s_best_cell_is_one_for_any_iou() -> None:
    flat = flatten_levels(LEVELS)
    boxes = torch.tensor([[1.0, 1.0, 3.0, 3.0], [20.0, 20.0, 44.0, 44.0]])
    predicted = flat.boxes[0] + 100.0
    targets = assign(flat.logits[0].sigmoid(), predicted, flat.centres, boxes, torch.tensor([0, 1]))
    assert targets.labels.tolist().count(0) == 1
    assert not targets.scores.any()
    assert (targets.box_weights == 1).all()
    overlapping = assign(flat.logits[0].sigmoid(), flat.boxes[0], flat.centres, boxes, torch.tensor([0, 1]))
    for label in range(2):
        assert overlapping.box_weights[overlapping.labels == label].max() == 1
    assert overlapping.box_weights.min() < 1


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 60), st.floats(0, 60), st.floats(0.5, 40), st.floats(0.5, 40), st.integers(0, 2)
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_single_box_always_has_a_cell_and_a_cell_at_most_one_box(
    rows: list[tuple[float, float, float, float, int]],
) -> None:
    flat = flatten_levels(LEVELS)
    boxes = torch.tensor([[x, y, min(x + w, 64.0), min(y + h, 64.0)] for x, y, w, h, _ in rows])
    labels = torch.tensor([label for *_, label in rows])
    targets = assign(flat.logits[0].sigmoid(), flat.boxes[0], flat.centres, boxes, labels)
    assert ((targets.scores > 0).sum(-1) <= 1).all()
    assert len(targets.boxes) == len(targets.labels) == len(targets.box_weights) == targets.positive.sum()
    assert ((targets.box_weights >= 0) & (targets.box_weights <= 1)).all()
    assert ((targets.scores >= 0) & (targets.scores <= 1)).all()
    single = assign(flat.logits[0].sigmoid(), flat.boxes[0], flat.centres, boxes[:1], labels[:1])
    assert single.positive.any()


def test_label_floor_raises_labels_below_one_and_changes_nothing_else() -> None:
    flat = flatten_levels(LEVELS)
    boxes = torch.stack([flat.boxes[0, 9], torch.tensor([36.0, 36.0, 62.0, 60.0])])
    args = flat.logits[0].sigmoid(), flat.boxes[0], flat.centres, boxes, torch.tensor([0, 1])
    plain, raised = assign(*args), assign(*args, label_floor=0.5)
    torch.testing.assert_close(raised.box_weights, plain.box_weights)
    assert raised.positive.tolist() == plain.positive.tolist()
    assert raised.scores[9, 0] == plain.scores[9, 0] == 1
    overlap = plain.scores[:, 1].max()
    assert 0 < overlap < 1
    torch.testing.assert_close(raised.scores[:, 1].max(), 0.5 + 0.5 * overlap)
    disjoint = assign(args[0], args[1] + 200, *args[2:], label_floor=0.5)
    assert disjoint.scores.amax(0).tolist() == [0.5, 0.5, 0.0]
