"""timm's encoder and transformers' decoder with translated weights compute what the original computes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsmoe_core.mobile_sam.network import MobileSam
from dsmoe_core.mobile_sam.prompt_segmenter import PromptSegmenter
from dsmoe_core.mobile_sam.weights import convert
from dsmoe_core.schema import Box
from tests.dsmoe_core.mobile_sam import restated
from tests.dsmoe_core.mobile_sam.original import Weights, shapes

SIDE = 128
TOLERANCE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
PROMPTS: list[tuple[list[tuple[float, float, int]], tuple[float, ...] | None]] = [
    ([(30.0, 40.0, 1)], None),
    ([(30.0, 40.0, 1), (100.5, 20.25, 0), (5.0, 120.0, 1)], None),
    ([], (10.0, 20.0, 90.0, 110.0)),
    ([(50.0, 50.0, 0)], (10.0, 20.0, 90.0, 110.0)),
]


def loaded(weights: Weights, side: int) -> MobileSam:
    network = MobileSam(side).eval()
    network.load_state_dict(convert(weights)[0])
    return network


@pytest.fixture(scope="module")
def network(original: Weights) -> MobileSam:
    return loaded(original, SIDE)


def test_the_encoder(network: MobileSam, original: Weights) -> None:
    """Convolutions, windowed attention with bias, mergings, neck; stride 16 at the end."""
    square = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = network.embed(square)
    assert ours.shape == (1, 256, 8, 8)
    torch.testing.assert_close(ours, restated.run_encoder(original, square), **TOLERANCE)


@pytest.mark.parametrize(("points", "box"), PROMPTS)
@pytest.mark.parametrize("multimask", [False, True])
def test_prompts_and_masks(
    network: MobileSam,
    original: Weights,
    points: list[tuple[float, float, int]],
    box: tuple[float, ...] | None,
    multimask: bool,
) -> None:
    embedding = torch.randn(1, 256, 8, 8, generator=torch.Generator().manual_seed(2))
    prompts = restated.run_prompts(original, SIDE, points, box)
    masks, scores = restated.run_decoder(original, embedding[0], prompts)
    with torch.no_grad():
        ours = network.decode(
            embedding,
            points=torch.tensor([(x, y) for x, y, _ in points]) if points else None,
            labels=torch.tensor([label for *_, label in points]) if points else None,
            box=torch.tensor(box) if box else None,
            multimask=multimask,
        )
    those = slice(1, 4) if multimask else slice(0, 1)
    torch.testing.assert_close(ours[0], masks[those], **TOLERANCE)
    torch.testing.assert_close(ours[1], scores[those], **TOLERANCE)


def test_a_quiet_decoder_shows_what_keeps_its_norms_from_dividing_by_zero(original: Weights) -> None:
    """1e-5, as torch has it; transformers' own is 1e-6, which other weights hardly tell apart."""
    quiet = {k: v * 0.1 if ".layers.0.self_attn." in k else v for k, v in original.items()}
    embedding = torch.randn(1, 256, 8, 8, generator=torch.Generator().manual_seed(2))
    prompts = restated.run_prompts(quiet, SIDE, [(30.0, 40.0, 1)], None)
    masks, scores = restated.run_decoder(quiet, embedding[0], prompts)
    point, label = torch.tensor([[30.0, 40.0]]), torch.tensor([1])
    with torch.no_grad():
        ours = loaded(quiet, SIDE).decode(embedding, points=point, labels=label, box=None, multimask=True)
    torch.testing.assert_close(ours[0], masks[1:], **TOLERANCE)
    torch.testing.assert_close(ours[1], scores[1:], **TOLERANCE)


def test_the_order_of_the_tokens_matters_to_the_comparison(original: Weights) -> None:
    """The random weights are such that a swap of two tensors of one shape would be seen."""
    swapped = dict(original)
    for part in ("weight", "bias"):
        a, b = (f"mask_decoder.transformer.layers.{i}.norm2.{part}" for i in (0, 1))
        swapped[a], swapped[b] = original[b], original[a]
    embedding = torch.randn(256, 8, 8, generator=torch.Generator().manual_seed(2))
    prompts = restated.run_prompts(original, SIDE, [(30.0, 40.0, 1)], None)
    masks, other = (restated.run_decoder(w, embedding, prompts)[0] for w in (original, swapped))
    assert (masks - other).abs().max() > 100 * TOLERANCE["atol"]


@pytest.mark.slow
def test_the_whole_encoder_at_its_own_size(original: Weights) -> None:
    square = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours = loaded(original, 1024).embed(square)
    torch.testing.assert_close(ours, restated.run_encoder(original, square), **TOLERANCE)


@pytest.fixture(scope="module")
def authors() -> Any:
    """The authors' own package, where somebody has it: nothing of ours depends on it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it enters its own TinyViT in timm's registry, and timm says so
        return pytest.importorskip("mobile_sam", reason="the authors' code is not installed")


@pytest.mark.slow
def test_the_authors_own_code_gives_the_same(authors: Any, original: Weights, tmp_path: Path) -> None:
    theirs = authors.sam_model_registry["vit_t"]()
    assert {k: tuple(v.shape) for k, v in theirs.state_dict().items()} == shapes()
    theirs.load_state_dict(original)
    theirs.eval()
    network = loaded(original, 1024)
    square = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        torch.testing.assert_close(network.embed(square), theirs.image_encoder(square), **TOLERANCE)

    image = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    predictor, ours = authors.SamPredictor(theirs), PromptSegmenter(network)
    predictor.set_image(image)
    box = Box(40.0, 30.0, 400.0, 222.0)
    for points, labels, boxed in [([(250.0, 99.5)], [1], None), ([(9.0, 8.0)], [0], box), ([], [], box)]:
        masks, scores, _ = predictor.predict(
            point_coords=np.array(points) if points else None,
            point_labels=np.array(labels) if points else None,
            box=np.array(boxed.corners) if boxed else None,
            multimask_output=boxed is None,
        )
        order = np.argsort(-scores)
        found = ours.segment(image, points=points, labels=labels, box=boxed)
        np.testing.assert_allclose(found.scores, scores[order], atol=1e-4)
        assert (found.masks == masks[order]).mean() > 0.9999
