"""A warm start: what is written is what a network begins with, and what does not fit is refused."""

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
    PART,
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
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "small.safetensors"
    save_warm_start(path, network(), size="nano", licence="Apache-2.0", made={"seed": 0})
    return path


def test_a_network_begins_with_the_encoder_and_keeps_the_rest(kept: Path) -> None:
    made, other = network().state_dict(), network(seed=1)
    fresh = {k: v.clone() for k, v in other.state_dict().items()}
    card = load_warm_start(other, kept)
    assert (card.size, card.licence, card.made) == ("nano", "Apache-2.0", {"seed": 0})
    for name, tensor in other.state_dict().items():
        expected = made[name] if name.startswith(PART) else fresh[name]
        exact = not name.startswith(PART) or tensor.ndim <= 1
        torch.testing.assert_close(tensor, expected, rtol=0 if exact else 1e-3, atol=0 if exact else 1e-6)


@pytest.mark.parametrize("row", ["C", "D", "E", "F"])
def test_it_serves_every_row_with_this_encoder_and_every_text_encoder(row: str, kept: Path) -> None:
    config = ModelConfig.model_validate({**SMALL.model_dump(), "ablation": row, "text_width": 24})
    other = network(config, seed=2)
    load_initial_encoder(other, kept)
    stem = "image_encoder.backbone.patch_embed.conv1.conv.weight"
    torch.testing.assert_close(other.state_dict()[stem], network().state_dict()[stem], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("row", ["A", "F"])
def test_another_encoder_does_not_take_it(row: str, kept: Path) -> None:
    config = ModelConfig.model_validate({**SMALL.model_dump(), "ablation": row, "width": 48})
    other = network(config)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(ModelError, match=r"for size nano and does not fit .*Take the preset of that size"):
        load_warm_start(other, kept)
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())


def test_base_keeps_within_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    save_warm_start(path, network(ModelConfig.of_size("base")), size="base", licence="", made={})
    assert 9_000_000 < path.stat().st_size <= MAX_BYTES
    load_initial_encoder(network(ModelConfig.of_size("base"), seed=1), path)


def test_weights_that_diverged_are_not_kept(tmp_path: Path) -> None:
    bad = network()
    with torch.no_grad():
        bad.get_parameter("image_encoder.mix.0.weight").fill_(1e6)  # beyond 16 bit
    with pytest.raises(ModelError, match=r"image_encoder\.mix\.0\.weight has values that are not finite"):
        save_warm_start(tmp_path / "a.safetensors", bad, size="nano", licence="", made={})
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_its_card_or_with_another_s_is_refused(kept: Path) -> None:
    card = card_path(kept).read_text()
    card_path(kept).write_text(json.dumps({**json.loads(card), "sha256": "0" * 64}))
    with pytest.raises(ModelError, match="is not the file that its card describes"):
        read_card(kept)
    card_path(kept).write_text(json.dumps({**json.loads(card), "size": "huge"}))
    with pytest.raises(ModelError, match=r"small\.json is no card of a warm start"):
        read_card(kept)
    card_path(kept).unlink()
    with pytest.raises(PrerequisiteError, match=r"small\.json of a warm start is not there.*dsmoe pretrain"):
        load_initial_encoder(network(), kept)


def test_what_is_missing_is_named_by_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="Make one with `dsmoe pretrain`"):
        load_initial_encoder(network(), tmp_path / "mine.safetensors")
    with pytest.raises(PrerequisiteError, match="Run `dsmoe weights mobile-sam`"):
        load_initial_encoder(network(), tmp_path / MOBILE_SAM)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(ModelError, match="format None; expected dsmoe-warm-start-1 or dsmoe-mobile-sam-1"):
        load_initial_encoder(network(), path)


@pytest.mark.parametrize("size", ["nano", "base"])
def test_what_ships_fits_its_size_and_what_does_not_says_so(size: str) -> None:
    path = shipped_path(size)  # type: ignore[arg-type]
    if path.is_file():
        card = load_warm_start(network(ModelConfig.of_size(size)), path)  # type: ignore[arg-type]
        assert (card.size, card.licence) == (size, "Apache-2.0")
        assert path.stat().st_size <= MAX_BYTES
    else:
        with pytest.raises(PrerequisiteError, match=f"no warm start for size {size} comes with dsmoe"):
            require_file(path)


def test_training_starts_from_it(
    kept: Path, tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    """One step of no length: what is saved is the file's."""
    fit(
        images=images[:2],
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=SMALL,
        training=TrainingConfig(images_seen=2, batch=2, learning_rate=1e-12, precision="32-true", seed=5),
        out=tmp_path / "model",
        encoder_from=kept,
    )
    trained, given = read_tensors(tmp_path / "model" / WEIGHTS)[0], read_tensors(kept)[0]
    assert len(given) > 100
    for name, tensor in given.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(trained[name], tensor.float(), check_dtype=False)
