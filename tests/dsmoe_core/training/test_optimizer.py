"""Tests that the settings of the optimizer take effect in training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import QUICK, SMALL, train
from torch import Tensor, nn

from dsmoe_core.build import build
from dsmoe_core.checkpoint import WEIGHTS, read_tensors
from dsmoe_core.config import TrainingConfig
from dsmoe_core.network import DSMoE
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.train import MAX_GRADIENT_NORM
from dsmoe_core.training.muon import Muon
from dsmoe_core.training.optimizer import WeightAverage, build_optimizer, set_learning_rate


def test_all_groups_without_a_rate_of_their_own_get_the_learning_rate() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), TrainingConfig())
    set_learning_rate(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}


def test_only_matrices_have_weight_decay_and_frozen_weights_are_left_out() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    network[2].requires_grad_(False)
    matrices, vectors = build_optimizer(network, TrainingConfig(weight_decay=0.3)).param_groups
    assert [p.shape for p in matrices["params"]] == [(2, 1, 3, 3)]
    assert [p.shape for p in vectors["params"]] == [(2,)] * 3
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)


def test_text_weights_use_text_rate_and_matrices_use_muon() -> None:
    training = TrainingConfig(learning_rate=0.5, text_rate=0.25, matrix_rate=4.0)
    network = build(SMALL)
    optimizer = build_optimizer(network, training)
    set_learning_rate(optimizer, training.learning_rate)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(groups) == len(list(network.parameters()))
    text_weights = [
        *network.text_prompt.parameters(),
        *network.distillation.parameters(),
        network.head.text_projection.weight,
    ]
    assert {groups[id(p)]["lr"] for p in text_weights} == {0.125}
    assert {groups[id(p)]["matrix_rate"] for p in text_weights} == {0.0}
    others = [groups[id(p)] for p in network.cbam.parameters()]
    assert {group["lr"] for group in others} == {0.5}
    by_muon = {id(p) for group in optimizer.param_groups if group["matrix_rate"] for p in group["params"]}
    assert id(network.image_encoder.mix[0].weight) in by_muon
    kernels = [p for n, p in network.named_parameters() if "depthwise" in n]
    assert kernels
    cross = network.experts.cross
    assert not by_muon & {id(p) for p in (*kernels, cross.scale, cross.shift)}
    assert by_muon >= {id(cross.visual), id(cross.textual)}
    assert {groups[id(p)]["weight_decay"] for p in (cross.scale, cross.shift)} == {0.0}


def test_backbone_has_its_own_learning_rate() -> None:
    training = TrainingConfig(learning_rate=0.5, backbone_lr_factor=0.5)
    network = build(SMALL)
    optimizer = build_optimizer(network, training)
    set_learning_rate(optimizer, training.learning_rate)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in network.image_encoder.backbone.parameters()} == {0.25}
    assert {rates[id(p)] for p in network.image_encoder.mix.parameters()} == {0.5}


def test_with_matrix_rate_zero_all_weights_use_adamw() -> None:
    optimizer = build_optimizer(build(SMALL), TrainingConfig(matrix_rate=0.0))
    assert not any(group["matrix_rate"] for group in optimizer.param_groups)


def test_moving_average_has_a_smaller_decay_at_the_start() -> None:
    average, network = (nn.BatchNorm1d(1).requires_grad_(False) for _ in range(2))
    nn.init.constant_(network.weight, 3.0)
    network.num_batches_tracked += 7
    moving_average = WeightAverage(average, network, 0.99)
    moving_average.update(1)
    assert float(average.weight) == pytest.approx(1 + 2 * (1 - 2 / 11))
    assert average.num_batches_tracked == 7
    before = float(average.weight)
    moving_average.update(10**6)
    assert float(average.weight) == pytest.approx(before + 0.01 * (3 - before))


def test_the_saved_model_has_the_averaged_weights(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    weights = {}
    for ema in (0.0, 0.5):
        train(tmp_path / f"{ema}", images, vocabulary, training=QUICK.model_copy(update={"ema": ema}))
        weights[ema] = read_tensors(tmp_path / f"{ema}" / WEIGHTS)[0]
    different = [n for n, tensor in weights[0.0].items() if not torch.equal(tensor, weights[0.5][n])]
    assert len(different) > len(weights[0.0]) / 2


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)])
def test_network_runs_in_the_configured_precision_and_channels_last(
    precision: str,
    dtype: torch.dtype,
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps: list[Tensor] = []
    forward = DSMoE.forward

    def recording(network: DSMoE, images: Tensor, *rest: Any) -> Any:
        assert images.is_contiguous(memory_format=torch.channels_last)
        kernel = network.image_encoder.mix[0].weight
        assert kernel.is_contiguous(memory_format=torch.channels_last)
        hook = network.image_encoder.mix[0].register_forward_hook(lambda m, i, o: maps.append(o))
        output = forward(network, images, *rest)
        hook.remove()
        return output

    monkeypatch.setattr(DSMoE, "forward", recording)
    training = QUICK.model_copy(update={"precision": precision, "images_seen": 2})
    train(tmp_path, images, vocabulary, training=training)
    assert {m.dtype for m in maps} == {dtype}
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)
    assert {t.dtype for n, t in read_tensors(tmp_path / WEIGHTS)[0].items() if n.endswith("weight")} == {
        torch.float32
    }


def test_gradients_are_clipped_before_the_step(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A loss weight that is a thousand times too large gives large gradients, which must be clipped."""
    norms: list[float] = []
    step = Muon.step

    def recording(optimizer: Muon, *rest: Any, **named: Any) -> Any:
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))
        return step(optimizer, *rest, **named)

    monkeypatch.setattr(Muon, "step", recording)
    reported: list[dict[str, float]] = []
    training = QUICK.model_copy(update={"losses": QUICK.losses.model_copy(update={"box": 2000.0})})
    train(
        tmp_path,
        images,
        vocabulary,
        training=training,
        progress=lambda step, steps, metrics: reported.append(metrics),
    )
    assert len(norms) == 6
    assert all(norm <= MAX_GRADIENT_NORM * 1.001 for norm in norms)
    assert max(metrics["gradient_norm"] for metrics in reported) > 10 * MAX_GRADIENT_NORM
    rates = [metrics["learning_rate"] for metrics in reported]
    assert rates[1] == pytest.approx(QUICK.learning_rate, rel=0.1)
    assert rates[-1] < rates[1]
