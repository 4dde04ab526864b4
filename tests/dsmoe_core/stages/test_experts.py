"""Stage 8 against eq. 21-24: a loop over images and the experts that each one chose."""

from __future__ import annotations

import pytest
import torch
from references import close, convolved, gated, pointwise, pooled, random, randomised, resized
from torch import Tensor

from dsmoe_core.outputs import GatingOutput
from dsmoe_core.stages.experts import CrossModalExperts, GlobalExpert, LocalExpert, SparseExperts


def local(expert: LocalExpert, x: Tensor) -> Tensor:
    """Eq. 22: tall and wide kernels of 3 and 5, side by side, the two sizes summed."""
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


def surroundings(expert: GlobalExpert, x: Tensor, cells: tuple[int, ...]) -> Tensor:
    """Eq. 23: means of windows, laid back over the map, side by side."""
    maps = [resized(pooled(x, c), x.shape[2], x.shape[3]) for c in cells]
    return pointwise(torch.cat(maps, dim=1), expert.point)


def crossed(experts: CrossModalExperts, j: int, x: Tensor, text: Tensor) -> Tensor:
    """Eq. 24 at every position: LayerNorm(W_v x + W_t T^_j)."""
    mixed = torch.einsum("dhw,de->hwe", x, experts.visual[j]) + text @ experts.textual[j]
    centred = mixed - mixed.mean(-1, keepdim=True)
    unit = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return (unit * experts.scale[j] + experts.shift[j]).permute(2, 0, 1)


def reference(stage: SparseExperts, f_b: Tensor, signal: GatingOutput, cells: tuple[int, int]) -> Tensor:
    out = torch.zeros_like(f_b)
    for b in range(len(f_b)):
        for e, w in zip(signal.experts[b].tolist(), signal.weights[b], strict=True):
            if e == 0:
                answer = local(stage.task[0], f_b[b : b + 1])[0]
            elif e == 1:
                answer = surroundings(stage.task[1], f_b[b : b + 1], cells)[0]
            else:
                answer = crossed(stage.cross, e - 2, f_b[b], signal.expert_text[e])
            out[b] += w * answer
    return out


@torch.no_grad()
@pytest.mark.parametrize(("grid_stride", "cells"), [(4, (4, 8)), (8, (2, 4)), (16, (2, 4))])
@pytest.mark.parametrize("top_k", [1, 3, 6])
def test_equals_the_loop(top_k: int, grid_stride: int, cells: tuple[int, int]) -> None:
    stage = randomised(SparseExperts(width=6, text_width=10, experts=6, grid_stride=grid_stride))
    f_b, signal = random(4, 6, 5, 7), gated(4, 6, top_k, 10)
    close(stage(f_b, signal), reference(stage, f_b, signal, cells), 1e-10)


@torch.no_grad()
@pytest.mark.parametrize("lone", range(6))
def test_each_expert_alone(lone: int) -> None:
    stage = randomised(SparseExperts(width=6, text_width=10, experts=6, grid_stride=8))
    f_b, signal = random(1, 6, 4, 3), gated(1, 6, 1, 10)._replace(experts=torch.tensor([[lone]]))
    close(stage(f_b, signal), reference(stage, f_b, signal, (2, 4)), 1e-10)


CHOICES = {"task experts": [[0, 3], [0, 5]], "one task expert": [[1, 4], [4, 2]], "cross": [[2, 5], [5, 3]]}


def weights_of(stage: SparseExperts, e: int) -> list[Tensor]:
    return [*stage.task[e].parameters()] if e < 2 else [p[e - 2] for p in stage.cross.parameters()]


def gradients_of(stage: SparseExperts, e: int) -> list[Tensor]:
    if e < 2:
        return [p.grad for p in stage.task[e].parameters() if p.grad is not None]
    return [p.grad[e - 2] for p in stage.cross.parameters() if p.grad is not None]


@pytest.mark.parametrize("choice", CHOICES.values(), ids=list(CHOICES))
def test_an_expert_that_nobody_chose_neither_runs_nor_learns(choice: list[list[int]]) -> None:
    """Its weights are NaN: whatever read them, were it times zero, would be NaN too."""
    stage = randomised(SparseExperts(width=6, text_width=10, experts=6, grid_stride=8))
    f_b, signal = random(2, 6, 4, 4), gated(2, 6, 2, 10)._replace(experts=torch.tensor(choice))
    expected = stage(f_b, signal).detach()
    busy = {e for chosen in choice for e in chosen}
    called: list[int] = []
    for index, expert in enumerate(stage.task):
        expert.register_forward_hook(lambda *_, index=index: called.append(index))
    with torch.no_grad():
        for e in set(range(6)) - busy:
            for weight in (*weights_of(stage, e), signal.expert_text[e]):
                weight.fill_(torch.nan)
    found = stage(f_b, signal)
    assert torch.equal(found, expected)
    assert called == [e for e in (0, 1) if e in busy]
    found.square().sum().backward()
    for e in range(6):
        gradients = gradients_of(stage, e)
        if e in busy:
            assert len(gradients) == len(weights_of(stage, e))
            assert all(g.any() and g.isfinite().all() for g in gradients)
        else:
            assert not any(g.any() for g in gradients)


@torch.no_grad()
def test_only_chosen_pairs_are_multiplied() -> None:
    """The stacked experts get one row a chosen (image, expert) pair."""
    stage = randomised(SparseExperts(width=6, text_width=10, experts=6, grid_stride=8))
    seen: list[tuple[Tensor, ...]] = []
    stage.cross.register_forward_pre_hook(lambda _, args: seen.append(args))
    f_b, signal = (
        random(3, 6, 4, 5),
        gated(3, 6, 2, 10)._replace(experts=torch.tensor([[0, 3], [2, 3], [1, 0]])),
    )
    stage(f_b, signal)
    ((tokens, chosen, _),) = seen
    assert chosen.tolist() == [1, 0, 1]
    close(tokens, f_b[[0, 1, 1]].flatten(2).transpose(1, 2), 0)
    stage(f_b, signal._replace(experts=torch.tensor([[0, 1]] * 3)))
    assert len(seen) == 1, "nobody chose a cross-modal expert, so none was called"
