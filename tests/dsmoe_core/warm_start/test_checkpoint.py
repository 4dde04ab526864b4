"""Tests of warm-start files: saving, loading, and refusal of files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import SMALL, HashEncoder
from torch import nn

from dsmoe_core.build import build
from dsmoe_core.checkpoint import WEIGHTS, read_tensors
from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.mobile_sam.weights import FILE as MOBILE_SAM
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.train import fit
from dsmoe_core.warm_start.checkpoint import (
    MAX_BYTES,
    PREFIX,
    card_path,
    load_initial_encoder,
    load_warm_start,
    read_card,
    require_file,
    save_warm_start,
    shipped_path,
)


def network(config: ModelConfig = SMALL, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(config)


@pytest.fixture
def warm_start(tmp_path: Path) -> Path:
    """Write a warm start of the small network."""
    path = tmp_path / "mine" / "small.safetensors"
    save_warm_start(path, network(), size="nano", licence="Apache-2.0", made={"seed": 0})
    return path


def test_loading_replaces_the_image_encoder_and_nothing_else(warm_start: Path) -> None:
    saved, other = network().state_dict(), network(seed=1)
    fresh = {k: v.clone() for k, v in other.state_dict().items()}
    card = load_warm_start(other, warm_start)
    assert (card.size, card.licence, card.made) == ("nano", "Apache-2.0", {"seed": 0})
    for name, tensor in other.state_dict().items():
        expected = saved[name] if name.startswith(PREFIX) else fresh[name]
        exact = not name.startswith(PREFIX) or tensor.ndim <= 1
        torch.testing.assert_close(tensor, expected, rtol=0 if exact else 1e-3, atol=0 if exact else 1e-6)


@pytest.mark.parametrize("row", ["C", "D", "E", "F"])
def test_rows_c_to_f_and_any_text_width_can_load_it(row: str, warm_start: Path) -> None:
    config = ModelConfig.model_validate({**SMALL.model_dump(), "ablation": row, "text_width": 24})
    other = network(config, seed=2)
    load_initial_encoder(other, warm_start)
    stem = "image_encoder.backbone.patch_embed.conv1.conv.weight"
    torch.testing.assert_close(other.state_dict()[stem], network().state_dict()[stem], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("row", ["A", "F"])
def test_a_network_with_another_encoder_refuses_it_and_stays_unchanged(row: str, warm_start: Path) -> None:
    config = ModelConfig.model_validate({**SMALL.model_dump(), "ablation": row, "width": 48})
    other = network(config)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(ModelError, match="size nano"):
        load_warm_start(other, warm_start)
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())


def test_base_stays_below_the_size_limit(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    save_warm_start(path, network(ModelConfig.of_size("base")), size="base", licence="", made={})
    assert 9_000_000 < path.stat().st_size <= MAX_BYTES
    load_initial_encoder(network(ModelConfig.of_size("base"), seed=1), path)


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    bad = network()
    with torch.no_grad():
        bad.get_parameter("image_encoder.mix.0.weight").fill_(1e6)  # beyond 16 bit
    with pytest.raises(ModelError, match=r"image_encoder\.mix\.0\.weight"):
        save_warm_start(tmp_path / "a.safetensors", bad, size="nano", licence="", made={})
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_a_valid_card_of_its_own_is_refused(warm_start: Path) -> None:
    card = card_path(warm_start).read_text()
    card_path(warm_start).write_text(json.dumps({**json.loads(card), "sha256": "0" * 64}))
    with pytest.raises(ModelError, match=r"small\.safetensors"):
        read_card(warm_start)
    card_path(warm_start).write_text(json.dumps({**json.loads(card), "size": "huge"}))
    with pytest.raises(ModelError, match=r"small\.json"):
        read_card(warm_start)
    card_path(warm_start).unlink()
    with pytest.raises(PrerequisiteError, match=r"small\.json.*dsmoe pretrain"):
        load_initial_encoder(network(), warm_start)


def test_a_failed_rewrite_keeps_the_old_file_and_its_card(
    warm_start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: object) -> None:
        raise OSError

    before = read_card(warm_start)
    monkeypatch.setattr("dsmoe_core.warm_start.checkpoint.write_tensors", disk_full)
    with pytest.raises(OSError):
        save_warm_start(warm_start, network(seed=1), size="nano", licence="", made={})
    assert read_card(warm_start) == before


def test_a_missing_file_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="`dsmoe pretrain`"):
        load_initial_encoder(network(), tmp_path / "mine.safetensors")
    with pytest.raises(PrerequisiteError, match="`dsmoe weights mobile-sam`"):
        load_initial_encoder(network(), tmp_path / MOBILE_SAM)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(ModelError, match=r"None.*dsmoe-warm-start-1.*dsmoe-mobile-sam-1"):
        load_initial_encoder(network(), path)


@pytest.mark.parametrize("size", ["nano", "base"])
def test_a_shipped_file_fits_its_size_and_a_missing_one_is_refused(size: str) -> None:
    path = shipped_path(size)  # type: ignore[arg-type]
    if path.is_file():
        card = load_warm_start(network(ModelConfig.of_size(size)), path)  # type: ignore[arg-type]
        assert (card.size, card.licence) == (size, "Apache-2.0")
        assert path.stat().st_size <= MAX_BYTES
    else:
        with pytest.raises(PrerequisiteError, match=f"size {size}"):
            require_file(path)


def test_training_starts_from_the_file(
    warm_start: Path, tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    """With a negligible learning rate, the saved weights equal those of the file."""
    fit(
        images=images[:2],
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=SMALL,
        training=TrainingConfig(images_seen=2, batch=2, learning_rate=1e-12, precision="32-true", seed=5),
        out=tmp_path / "model",
        encoder_from=warm_start,
    )
    trained, start = read_tensors(tmp_path / "model" / WEIGHTS)[0], read_tensors(warm_start)[0]
    assert len(start) > 100
    for name, tensor in start.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(trained[name], tensor.float(), check_dtype=False)
