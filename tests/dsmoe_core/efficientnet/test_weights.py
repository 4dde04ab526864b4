"""EfficientNet-Lite0: names, the published file, and a network that starts from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from exports import VOCABULARY
from safetensors.torch import save_file
from tiny import SMALL, HashEncoder
from torch import nn

from dsmoe_core.build import build
from dsmoe_core.checkpoint import WEIGHTS, read_tensors, save_model
from dsmoe_core.config import TrainingConfig
from dsmoe_core.efficientnet.backbone import WIDTHS, EfficientNetLite0
from dsmoe_core.efficientnet.weights import (
    FILE,
    FORMAT,
    SHA256,
    convert,
    install,
    published_file,
)
from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.export import export
from dsmoe_core.published_weights import read_published
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.train import fit
from dsmoe_core.warm_start.checkpoint import load_initial_encoder

LITE = SMALL.model_copy(update={"backbone": "efficientnet-lite0"})


@pytest.fixture(scope="module")
def published() -> Path:
    path = published_file()
    assert path is not None
    return path


@pytest.fixture(scope="module")
def installed(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / FILE
    install(published, path)
    return path


def test_maps_have_strides_4_to_32() -> None:
    maps = EfficientNetLite0().forward_intermediates(torch.rand(2, 3, 64, 96) - 0.5, intermediates_only=True)
    assert [tuple(m.shape) for m in maps] == [
        (2, width, 64 // stride, 96 // stride) for width, stride in zip(WIDTHS, (4, 8, 16, 32), strict=True)
    ]


def test_published_tensors_get_timm_s_names(published: Path) -> None:
    original = read_published(published, "")
    assert len(original) == 296
    tensors = convert(original)
    assert len(tensors) == 240
    assert torch.equal(tensors["conv_stem.weight"], original["_conv_stem.weight"])
    assert torch.equal(tensors["blocks.0.0.conv_pw.weight"], original["_blocks.0._project_conv.weight"])
    assert torch.equal(tensors["blocks.2.1.bn3.running_var"], original["_blocks.4._bn2.running_var"])
    assert torch.equal(tensors["blocks.6.0.conv_pwl.weight"], original["_blocks.15._project_conv.weight"])


def test_activations_fit_the_stored_statistics(published: Path) -> None:
    """They do not where a normalisation has the tensors of another: then the largest distance is above 7."""
    backbone = EfficientNetLite0()
    backbone.features.load_state_dict(convert(read_published(published, "")))
    distances: list[float] = []

    def measure(norm: nn.Module, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
        state = norm.state_dict()
        std = state["running_var"].sqrt()
        active = std > 1e-3
        distance = (inputs[0].mean((0, 2, 3)) - state["running_mean"]).abs()
        distances.append(float((distance[active] / std[active]).median()))

    for name, module in backbone.features.named_modules():
        if name.split(".")[-1] in ("bn1", "bn2", "bn3"):
            module.register_forward_hook(measure)
    noise = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = F.interpolate(noise, (224, 224), mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        backbone.forward_intermediates(images - 0.5, intermediates_only=True)
    assert len(distances) == 48
    assert max(distances) < 2.0


@pytest.mark.parametrize(
    "change",
    [
        {"_conv_stem.weight": None},
        {"_conv_stem.weight": torch.zeros(32, 1, 3, 3)},
        {"_blocks.15._surplus.weight": torch.zeros(1)},
    ],
)
def test_other_tensors_are_refused(change: dict[str, torch.Tensor | None], published: Path) -> None:
    changed = {k: v for k, v in (read_published(published, "") | change).items() if v is not None}
    with pytest.raises(ModelError):
        convert(changed)


def test_only_the_published_file_is_installed(published: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(published.read_bytes() + b"0")
    with pytest.raises(ModelError, match=SHA256):
        install(other, tmp_path / FILE)
    assert not (tmp_path / FILE).exists()


def test_installed_file_says_where_it_comes_from(installed: Path) -> None:
    tensors, metadata = read_tensors(installed)
    assert (metadata["format"], metadata["sha256"]) == (FORMAT, SHA256)
    assert len(tensors) == 240


def test_network_starts_from_the_weights(installed: Path) -> None:
    network = build(LITE)
    load_initial_encoder(network, installed)
    tensors = read_tensors(installed)[0]
    state = network.state_dict()
    for name, tensor in tensors.items():
        assert torch.equal(state[f"image_encoder.backbone.features.{name}"], tensor)


def test_another_backbone_is_refused(installed: Path) -> None:
    with pytest.raises(ModelError, match="efficientnet-lite0"):
        load_initial_encoder(build(SMALL), installed)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    network = build(LITE)
    with pytest.raises(PrerequisiteError, match="imagenet-lite"):
        load_initial_encoder(network, tmp_path / FILE)
    save_file({"a": torch.ones(1)}, tmp_path / FILE)
    with pytest.raises(ModelError, match=FORMAT):
        load_initial_encoder(network, tmp_path / FILE)


def test_training_changes_weights_and_keeps_statistics(
    installed: Path, tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    fit(
        images=images[:4],
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=LITE,
        training=TrainingConfig(images_seen=8, batch=4, precision="32-true", ema=0.0),
        out=tmp_path / "model",
        encoder_from=installed,
    )
    trained = read_tensors(tmp_path / "model" / WEIGHTS)[0]
    start = read_tensors(installed)[0]
    prefix = "image_encoder.backbone.features."
    assert torch.equal(trained[prefix + "bn1.running_mean"], start["bn1.running_mean"])
    assert not torch.equal(trained[prefix + "conv_stem.weight"], start["conv_stem.weight"])


@pytest.mark.slow
def test_exported_network_equals_pytorch(tmp_path: Path) -> None:
    save_model(tmp_path / "model", build(LITE).eval(), LITE, VOCABULARY, {"text_encoder": HashEncoder.name})
    (tmp_path / "onnx").mkdir()
    card = export(tmp_path / "model", tmp_path / "onnx", export_format="onnx", text_encoder=HashEncoder())
    assert card.difference is not None
    logits, corners_px = card.difference
    assert logits < 1e-4
    assert corners_px < 1e-3
