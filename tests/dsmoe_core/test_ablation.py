"""Tests of ablation rows A to F and of the paper's literal forms: stages, training and loading."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from tiny import SMALL, HashEncoder

from dsmoe_core.ablation import AblatedDSMoE
from dsmoe_core.build import build
from dsmoe_core.checkpoint import WEIGHTS, read_tensors
from dsmoe_core.config import AblationRow, ModelConfig, PaperForms, TrainingConfig
from dsmoe_core.errors import ModelError
from dsmoe_core.network import DSMoE
from dsmoe_core.predict import Detector
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.stages.experts import GlobalExpert
from dsmoe_core.stages.image_encoder import ImageEncoder
from dsmoe_core.stages.resnet_encoder import ResNetEncoder
from dsmoe_core.stages.text_prompt import ClassIndex
from dsmoe_core.train import TrainingSummary, fit

QUICK = TrainingConfig(images_seen=6, batch=3)
STAGES = {
    "A": (ResNetEncoder, False, False, False),
    "B": (ResNetEncoder, True, False, False),
    "C": (ImageEncoder, True, False, False),
    "D": (ImageEncoder, True, True, False),
    "E": (ImageEncoder, True, True, True),
    "F": (ImageEncoder, True, True, True),
}


def train(
    config: ModelConfig, out: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> TrainingSummary:
    return fit(
        images=images,
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=config,
        training=QUICK,
        out=out,
    )


@pytest.mark.parametrize("row", get_args(AblationRow))
def test_a_row_has_exactly_its_stages(row: AblationRow) -> None:
    encoder, text, hyperbolic, experts = STAGES[row]
    network = build(SMALL.model_copy(update={"ablation": row}))
    assert isinstance(network, DSMoE if experts else AblatedDSMoE)
    assert isinstance(network.image_encoder, encoder)
    assert isinstance(network.text_prompt, ClassIndex) is not text
    assert (network.distillation is not None) is text
    assert (network.alignment is not None) is hyperbolic
    assert (network.broadcasting is not None) is hyperbolic


@pytest.mark.parametrize(
    "row",
    [*(pytest.param(row, marks=pytest.mark.slow, id=row) for row in "AB"), "C", "D", "E", "F"],
)
def test_every_row_trains_and_predicts(
    row: AblationRow, tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    summary = train(SMALL.model_copy(update={"ablation": row}), tmp_path, images, vocabulary)
    assert all(map(torch.isfinite, map(torch.tensor, summary.losses.values())))
    assert ("taxonomy" in summary.losses) is (row >= "D")
    assert ("misalignment" in summary.losses) is (row >= "E")
    detector = Detector.load(tmp_path, HashEncoder())
    detector.set_vocabulary(vocabulary)
    predictions = list(detector.predict([i.image for i in images], min_score=0.0))
    assert len(predictions) == len(images)
    assert all(bool(p.routing.experts) is (row >= "E") for p in predictions)


def test_row_a_does_not_depend_on_the_descriptions() -> None:
    torch.manual_seed(0)
    network = build(SMALL.model_copy(update={"ablation": "A"})).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        logits = []
        for seed in (1, 2):
            texts = torch.randn(3, 16, generator=torch.Generator().manual_seed(seed))
            encoding = network.encode_classes(texts, torch.ones(1, 16))
            logits.append(network(images, encoding.conditioning, encoding.classes).levels[0].logits)
    torch.testing.assert_close(*logits)


def test_row_a_supports_at_most_text_width_classes() -> None:
    with pytest.raises(ModelError, match=r"\b17\b.*\b16\b"):
        ClassIndex()(torch.ones(17, 16))


@pytest.mark.parametrize("form", [*PaperForms.model_fields, "all"])
def test_every_literal_form_trains_and_gives_other_weights(
    form: str, tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    forms = PaperForms.all_literal() if form == "all" else PaperForms(**{form: True})
    weights = []
    for config in (SMALL, SMALL.model_copy(update={"paper": forms})):
        out = tmp_path / str(len(weights))
        summary = train(config, out, images, vocabulary)
        assert all(map(torch.isfinite, map(torch.tensor, summary.losses.values())))
        weights.append(read_tensors(out / WEIGHTS)[0])
    default, literal = weights
    shared = [name for name in default if name in literal and default[name].shape == literal[name].shape]
    assert not all(torch.equal(default[name], literal[name]) for name in shared)


def test_tiny_object_head_can_be_switched_on_and_off() -> None:
    assert SMALL.with_tiny_head(True).head_strides == (4, 8, 16)
    assert SMALL.with_tiny_head(True).with_tiny_head(False) == SMALL
    assert [level.stride for level in build(SMALL.with_tiny_head(True)).head.levels] == [4, 8, 16]


def test_there_must_be_more_experts_than_task_experts() -> None:
    tasks = len(SMALL.task_experts)
    with pytest.raises(ValidationError):
        ModelConfig(experts=tasks, top_k=1)
    network = build(ModelConfig(**{**SMALL.model_dump(), "experts": tasks + 1, "top_k": 1}))
    assert len(network.experts.task) == tasks
    single = SMALL.model_copy(update={"task_experts": ("global",)})
    assert [type(expert) for expert in build(single).experts.task] == [GlobalExpert]
