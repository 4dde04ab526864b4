"""What is published becomes ours, tensor by tensor, or is refused with what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import SMALL, HashEncoder

from dsmoe_core.build import build
from dsmoe_core.checkpoint import WEIGHTS, read_tensors
from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.mobile_sam.network import MEAN, STD, MobileSam
from dsmoe_core.mobile_sam.weights import (
    FILE,
    convert,
    load_encoder,
    read_encoder_weights,
    read_original,
    read_weights,
    write_weights,
)
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.train import fit
from tests.dsmoe_core.mobile_sam.original import Weights, image_encoder


def test_every_tensor_finds_its_place(original: Weights) -> None:
    ours, report = convert(original)
    assert report.fit.problems == []
    assert len(report.fit.matched) + len(report.ignored) == len(original) == 439
    encoder = [name for name in report.fit.matched if name.startswith(("image_encoder.", "neck."))]
    assert len(encoder) + len(report.ignored) == len(image_encoder()) == 302
    assert set(report.ignored) == {
        f"image_encoder.{layer}.{kind}" for layer in ("norm_head", "head") for kind in ("weight", "bias")
    }
    assert "image_encoder: 292 of 292 tensors match" in report.lines
    assert not any("missing" in line or "unknown" in line for line in report.lines)
    MobileSam(128).load_state_dict(ours)


STEM = "image_encoder.patch_embed.seq.0.c.weight"
CHANGES: list[tuple[str, dict[str, Any], str]] = [
    ("missing", {STEM: None}, "missing: image_encoder.patch_embed.conv1.conv.weight"),
    (
        "wrong shape",
        {STEM: torch.zeros(32, 1, 3, 3)},
        r"conv1.conv.weight \(32, 1, 3, 3\) \(expected \(32, 3",
    ),
    (
        "unknown",
        {"image_encoder.layers.9.surplus": torch.zeros(1)},
        "unknown: image_encoder.layers.9.surplus",
    ),
    ("unknown", {"image_encoder.patch_embed.conv1.conv.weight": torch.zeros(32, 3, 3, 3)}, "unknown: "),
    ("missing", {"mask_decoder.iou_token.weight": None}, "missing: mask_decoder.iou_token.weight"),
    ("missing", {"image_encoder.neck.0.weight": None}, "missing: neck.0.weight"),
]


@pytest.mark.parametrize(("kind", "change", "expected"), CHANGES)
def test_what_does_not_fit_is_named_and_refused(
    kind: str, change: Weights, expected: str, original: Weights, tmp_path: Path
) -> None:
    changed = {name: value for name, value in (original | change).items() if value is not None}
    tensors, report = convert(changed)
    (problem,) = report.fit.problems
    assert problem.startswith(f"{kind}: ")
    assert problem in report.lines
    with pytest.raises(ModelError, match=expected):
        write_weights(tensors, report, tmp_path / FILE, {})
    assert list(tmp_path.iterdir()) == []


def test_another_network_is_refused_in_a_short_message(tmp_path: Path) -> None:
    tensors, report = convert({f"layer{i}.weight": torch.zeros(2) for i in range(50)})
    assert "image_encoder: 0 of 292 tensors match" in report.lines
    with pytest.raises(ModelError, match="and 45 more") as refused:
        write_weights(tensors, report, tmp_path / FILE, {"from": "other.pt"})
    assert "other.pt" in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_half_precision_becomes_ours(original: Weights) -> None:
    ours, report = convert({k: v.half() if v.is_floating_point() else v for k, v in original.items()})
    assert report.fit.problems == []
    own = MobileSam(128).state_dict()
    assert {k: v.dtype for k, v in ours.items()} == {k: v.dtype for k, v in own.items()}


@pytest.mark.parametrize("name", ["mobile_sam.pt", "mobile_sam.pth", "mobile_sam.safetensors"])
def test_both_kinds_of_file_are_read(name: str, tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0), "b.c": torch.ones(2, 2)}
    save = save_file if name.endswith(".safetensors") else torch.save
    save(tensors, tmp_path / name)
    read = read_original(tmp_path / name)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[k], v) for k, v in tensors.items())


class Code:
    """Runs when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.touched,)


def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1), "b": Code(tmp_path / "touched")}, tmp_path / "mobile_sam.pt")
    with pytest.raises(ModelError, match=r"mobile_sam\.pt"):
        read_original(tmp_path / "mobile_sam.pt")
    assert not (tmp_path / "touched").exists()
    torch.load(tmp_path / "mobile_sam.pt", weights_only=False)
    assert (tmp_path / "touched").exists()  # an unsafe load runs the code


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_refused(share: float, suffix: str, tmp_path: Path) -> None:
    whole, torn = tmp_path / f"whole{suffix}", tmp_path / f"torn{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save({"a": torch.randn(1000), "b": torch.randn(1000)}, whole)
    content = whole.read_bytes()
    torn.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"Give mobile_sam\.pt"):
        read_original(torn)


@pytest.mark.parametrize(
    "content", [[torch.ones(1)], {"model": {"a": torch.ones(1)}}, torch.ones(1), {"a": 1}]
)
def test_content_other_than_named_tensors_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "mobile_sam.pt")
    with pytest.raises(ModelError, match=r"mobile_sam\.pt"):
        read_original(tmp_path / "mobile_sam.pt")


def test_installed_weights_are_found(kept_file: Path, original: Weights) -> None:
    encoder = read_encoder_weights(kept_file)
    assert len(encoder) == 292
    assert torch.equal(encoder["stages.1.downsample.conv2.conv.weight"], original[DOWN])
    assert {name.split(".")[0] for name in read_weights(kept_file)} == {
        "image_encoder", "neck", "prompt_encoder", "mask_decoder"
    }  # fmt: skip


DOWN = "image_encoder.layers.0.downsample.conv2.c.weight"


def test_weights_that_are_not_there_or_not_ours_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="Run `dsmoe weights mobile-sam`"):
        read_encoder_weights(tmp_path / FILE)
    save_file({"a": torch.ones(1)}, tmp_path / FILE)
    with pytest.raises(ModelError, match="format None; expected dsmoe-mobile-sam-1"):
        read_weights(tmp_path / FILE)


def test_the_detector_s_encoder_sees_what_mobile_sam_s_sees(kept_file: Path) -> None:
    """Though stage 3 scales its images in another way."""
    base = build(ModelConfig.of_size("base")).eval()
    backbone = base.image_encoder.backbone
    report = load_encoder(base, kept_file)
    assert len(report.fit.matched) == 292
    assert report.lines == ["image_encoder: 292 of 292 tensors match"]
    seen: list[torch.Tensor] = []
    stem = backbone.get_submodule("patch_embed.conv1")
    hook = stem.register_forward_hook(lambda module, given, output: seen.append(output))
    values = torch.randint(0, 256, (1, 3, 64, 64)).float()
    with torch.no_grad():
        base.image_encoder(values / 255)
        hook.remove()
        sam = MobileSam(64)
        sam.load_state_dict(read_weights(kept_file))
        normalised = (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        expected = sam.eval().image_encoder.patch_embed.conv1(normalised)
    torch.testing.assert_close(seen[0][..., 1:, 1:], expected[..., 1:, 1:], atol=1e-5, rtol=1e-5)
    taken = backbone.state_dict()
    rest = {k: v for k, v in read_encoder_weights(kept_file).items() if not k.startswith("patch_embed.conv1")}
    assert all(torch.equal(taken[k], v) for k, v in rest.items())


@pytest.mark.parametrize("config", [ModelConfig(), ModelConfig(ablation="A")], ids=["nano", "ResNet-50"])
def test_weights_do_not_fit_another_encoder(config: ModelConfig, kept_file: Path) -> None:
    network = build(config)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ModelError, match="`base`"):
        load_encoder(network, kept_file)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


@pytest.mark.slow
def test_training_starts_from_them(
    kept_file: Path, tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    """One step of no length: what is saved is the file's, but for the stem, which is rescaled."""
    config = ModelConfig.of_size("base").model_copy(
        update={"image_px": 64, "text_width": 16, "text_heads": 2}
    )
    fit(
        images=images[:2],
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=config,
        training=TrainingConfig(images_seen=2, batch=2, learning_rate=1e-12, precision="32-true"),
        out=tmp_path / "model",
        encoder_from=kept_file,
    )
    trained = read_tensors(tmp_path / "model" / WEIGHTS)[0]
    for name, tensor in read_encoder_weights(kept_file).items():
        if not name.startswith("patch_embed.conv1") and "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(trained[f"image_encoder.backbone.{name}"], tensor)


def test_training_without_the_file_says_how_to_get_it(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    with pytest.raises(PrerequisiteError, match="Run `dsmoe weights mobile-sam`"):
        fit(
            images=images,
            vocabulary=vocabulary,
            text_encoder=HashEncoder(),
            model=SMALL,
            training=TrainingConfig(images_seen=2, batch=2),
            out=tmp_path / "model",
            encoder_from=tmp_path / FILE,
        )
