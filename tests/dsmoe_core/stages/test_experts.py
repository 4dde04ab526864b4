"""Tests of stage 8 against eq. 21-24, computed in a loop over images and their selected experts.

The tests cover every expert in ``TASK_EXPERTS``. A new one needs an entry in ``REFERENCES``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from references import close, convolved, gated, pointwise, pooled, random, randomised, resized
from torch import Tensor, nn

from dsmoe_core.errors import SettingsError
from dsmoe_core.outputs import GatingOutput
from dsmoe_core.stages.experts import (
    BLOCK,
    TASK_EXPERTS,
    CrossModalExperts,
    GlobalExpert,
    LocalExpert,
    SparseExperts,
    group_by_expert,
)

TASKS = len(TASK_EXPERTS)
COUNT = TASKS + 4
"""Number of experts in these tests."""


def local_reference(expert: LocalExpert, x: Tensor, _stride: int) -> Tensor:
    """Compute eq. 22: vertical and horizontal kernels of 3 and 5, concatenated; the two sizes are summed."""
    x = pointwise(x, expert.reduce)
    tall = [
        convolved(x, c.weight, top=k // 2, left=0) + c.bias[:, None, None]
        for k, c in zip((3, 5), expert.tall, strict=True)
    ]
    wide = [
        convolved(x, c.weight, top=0, left=k // 2) + c.bias[:, None, None]
        for k, c in zip((3, 5), expert.wide, strict=True)
    ]
    return pointwise(torch.cat([sum(tall), sum(wide)], dim=1), expert.point)


WINDOWS = {4: (4, 8), 8: (2, 4), 16: (2, 4)}
"""Pooling windows of the global expert in cells, by the stride of F_b."""


def global_reference(expert: GlobalExpert, x: Tensor, stride: int) -> Tensor:
    """Compute eq. 23: means of windows, resized to the map and concatenated."""
    maps = [resized(pooled(x, cells), x.shape[2], x.shape[3]) for cells in WINDOWS[stride]]
    return pointwise(torch.cat(maps, dim=1), expert.point)


REFERENCES: dict[str, Callable[[Any, Tensor, int], Tensor]] = {
    "local": local_reference,
    "global": global_reference,
}
"""Reference implementation of each task expert: (expert, F_b, stride of F_b) to its output."""


def cross_modal_reference(experts: CrossModalExperts, j: int, x: Tensor, text: Tensor) -> Tensor:
    """Compute eq. 24 at every position: LayerNorm(W_v x + W_t T^_j)."""
    mixed = torch.einsum("dhw,de->hwe", x, experts.visual[j]) + text @ experts.textual[j]
    centred = mixed - mixed.mean(-1, keepdim=True)
    unit = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return (unit * experts.scale[j] + experts.shift[j]).permute(2, 0, 1)


def expert_output(stage: SparseExperts, e: int, image: Tensor, signal: GatingOutput, stride: int) -> Tensor:
    """Compute one expert on one image (d, h, w)."""
    if e < TASKS:
        return [REFERENCES[name] for name in TASK_EXPERTS][e](stage.task[e], image[None], stride)[0]
    return cross_modal_reference(stage.cross, e - TASKS, image, signal.expert_text[e])


def reference(stage: SparseExperts, f_b: Tensor, signal: GatingOutput, stride: int) -> Tensor:
    """Compute F_MoE as the weighted sum over the selected experts of each position."""
    experts, weights = (v.expand(-1, -1, *f_b.shape[2:]) for v in (signal.experts, signal.weights))
    out = torch.zeros_like(f_b)
    for b, e in product(range(len(f_b)), range(COUNT)):
        weight = (weights[b] * (experts[b] == e)).sum(0)
        out[b] += weight * expert_output(stage, e, f_b[b], signal, stride)
    return out


def make_stage(grid_stride: int = 8) -> SparseExperts:
    return randomised(SparseExperts(width=6, text_width=10, experts=COUNT, grid_stride=grid_stride))


@torch.no_grad()
@pytest.mark.parametrize("per_position", [True, False])
@pytest.mark.parametrize("grid_stride", WINDOWS)
@pytest.mark.parametrize("top_k", [1, 3, COUNT])
def test_output_equals_the_sum_over_selected_experts(
    top_k: int, grid_stride: int, per_position: bool
) -> None:
    stage, f_b = make_stage(grid_stride), random(4, 6, 15, 7)
    signal = gated(4, COUNT, top_k, 10, *((15, 7) if per_position else (1, 1)))
    close(stage(f_b, signal), reference(stage, f_b, signal, grid_stride), 1e-10)


@torch.no_grad()
@pytest.mark.parametrize("expert", range(COUNT))
def test_output_of_a_single_selected_expert(expert: int) -> None:
    stage = make_stage()
    signal = gated(1, COUNT, 1, 10)._replace(experts=torch.full((1, 1, 1, 1), expert))
    f_b = random(1, 6, 4, 3)
    close(stage(f_b, signal), reference(stage, f_b, signal, 8), 1e-10)


SELECTIONS = {
    "each task expert once": [[e, TASKS + e % 4] for e in range(TASKS)],
    "one task expert": [[TASKS - 1, TASKS + 2], [TASKS + 2, TASKS]],
    "cross-modal experts only": [[TASKS, TASKS + 3], [TASKS + 3, TASKS + 1]],
    "no expert in one of two slots": [[TASKS, -1], [-1, TASKS - 1]],
}


def weights_of(stage: SparseExperts, e: int) -> list[Tensor]:
    if e < TASKS:
        return [*stage.task[e].parameters()]
    return [p[e - TASKS] for p in stage.cross.parameters()]


def gradients_of(stage: SparseExperts, e: int) -> list[Tensor]:
    if e < TASKS:
        return [p.grad for p in stage.task[e].parameters() if p.grad is not None]
    return [p.grad[e - TASKS] for p in stage.cross.parameters() if p.grad is not None]


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=list(SELECTIONS))
def test_unselected_experts_neither_matter_nor_get_gradients(selection: list[list[int]]) -> None:
    stage, images = make_stage(), len(selection)
    f_b = random(images, 6, 4, 4)
    signal = gated(images, COUNT, 2, 10)._replace(experts=torch.tensor(selection)[..., None, None])
    expected = stage(f_b, signal).detach()
    selected = {e for experts in selection for e in experts}
    called: list[int] = []
    for index, expert in enumerate(stage.task):
        expert.register_forward_hook(lambda *_, index=index: called.append(index))
    with torch.no_grad():
        for e in set(range(COUNT)) - selected:
            for weight in (*weights_of(stage, e), signal.expert_text[e]):
                weight.normal_()
    output = stage(f_b, signal)
    assert torch.equal(output, expected)
    assert called == [e for e in range(TASKS) if e in selected]
    output.square().sum().backward()
    for e in range(COUNT):
        gradients = gradients_of(stage, e)
        if e in selected:
            assert len(gradients) == len(weights_of(stage, e))
            assert all(g.any() and g.isfinite().all() for g in gradients)
        else:
            assert not any(g.any() for g in gradients)


@given(st.integers(1, 3), st.lists(st.integers(-2, 5), min_size=1, max_size=200))
def test_pairs_are_grouped_by_expert_in_their_order(images: int, of_image: list[int]) -> None:
    groups = group_by_expert(torch.tensor([of_image] * images), 6)
    blocks = images * math.ceil(len(of_image) / BLOCK) + 6
    pairs = of_image * images
    assert len(groups.experts) == blocks
    used = [place for pair, place in zip(pairs, groups.places.tolist(), strict=True) if pair >= 0]
    assert len(set(used)) == len(used)
    for pair, place in zip(pairs, groups.places.tolist(), strict=True):
        assert place == blocks * BLOCK if pair < 0 else int(groups.experts[place // BLOCK]) == pair
    for expert in set(pairs) - {-1, -2}:
        places = [p for e, p in zip(pairs, groups.places.tolist(), strict=True) if e == expert]
        assert places == list(range(places[0], places[0] + len(places)))
    spare = set(groups.experts.tolist()) - set(pairs)
    assert not spare or max(pairs, default=-1) < 0


@torch.no_grad()
def test_task_expert_runs_on_the_images_of_which_a_position_selected_it() -> None:
    stage, f_b = make_stage(), random(3, 6, 4, 5)
    experts = torch.full((3, 1, 4, 5), TASKS)
    experts[1, 0, 2, 3] = 0
    seen: list[Tensor] = []
    stage.task[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    stage(f_b, gated(3, COUNT, 1, 10, 4, 5)._replace(experts=experts))
    assert [x.shape[0] for x in seen] == [1]
    close(seen[0], f_b[1:2], 0)


class Doubling(nn.Module):
    """Task expert that doubles its input."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@torch.no_grad()
def test_a_registered_task_expert_runs_when_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASK_EXPERTS, "doubling", lambda _width, _stride: Doubling())
    task_experts = ("local", "doubling")
    stage = randomised(
        SparseExperts(width=6, text_width=10, experts=COUNT, grid_stride=8, task_experts=task_experts)
    )
    f_b, signal = random(2, 6, 4, 3), gated(2, COUNT, 1, 10)
    signal = signal._replace(experts=torch.ones(2, 1, 1, 1).long(), weights=torch.ones(2, 1, 1, 1))
    close(stage(f_b, signal), 2 * f_b, 0)


def test_an_unregistered_task_expert_is_refused() -> None:
    with pytest.raises(SettingsError, match="unknown-name"):
        SparseExperts(width=6, text_width=10, experts=4, grid_stride=8, task_experts=("unknown-name",))
