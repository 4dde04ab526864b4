"""Detections: in image pixels, streamed in order, and the same whatever the batch."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import SMALL, HashEncoder

from dsmoe_core.build import build_full_network
from dsmoe_core.checkpoint import CARD, WEIGHTS, load_model, save_model
from dsmoe_core.data.letterbox import apply_gamma
from dsmoe_core.data.letterbox_cache import CacheConfig
from dsmoe_core.errors import ModelError
from dsmoe_core.predict import Detector, _routing, nms_per_class
from dsmoe_core.runtimes.protocol import RouterOutput
from dsmoe_core.schema import ClassText, LabelledImage, Prediction, Vocabulary
from dsmoe_core.text_embeddings import conditioning_vocabulary
from dsmoe_core.uncertainty import filter_by_score


@pytest.fixture
def model(tmp_path: Path, vocabulary: Vocabulary) -> Path:
    torch.manual_seed(0)
    network = build_full_network(SMALL)
    with torch.no_grad():
        for level in network.head.levels:
            level.bias.fill_(0.0)  # an untrained network that finds things
    save_model(tmp_path / "model", network, SMALL, vocabulary, {})
    return tmp_path / "model"


def look(
    model: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    batch: int,
    cache: CacheConfig | None = None,
) -> list[Prediction]:
    detector = Detector.load(model, HashEncoder(), cache=cache)
    detector.set_vocabulary(vocabulary)
    return list(detector.predict((p.image for p in images), batch=batch))


def test_detections_lie_in_the_image_with_everything_filled_in(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    results = look(model, images, vocabulary, batch=4)
    assert [r.key for r in results] == [p.image.key for p in images]
    for result in results:
        assert result.detections
        assert result.version.endswith("+v1")
        assert len(result.routing.experts) == SMALL.top_k
        assert math.isclose(sum(result.routing.weights), 1.0, abs_tol=1e-5)
        once = [f for f in result.detections if f.is_top_class]
        assert result.uncertainty == pytest.approx(sum(f.entropy for f in once))
        scores = [f.score for f in result.detections]
        assert scores == sorted(scores, reverse=True)
        for detection in result.detections:
            assert detection.box.inside(100, 80, tolerance=0.0)
            assert detection.probabilities.keys() == {"dark", "light"}
            assert detection.probabilities[detection.label] == detection.score
            assert 0 <= detection.entropy <= math.log(2) + 1e-9


def test_the_surer_detections_stay_with_the_uncertainty_of_themselves_alone(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    (faint, *_) = look(model, images, vocabulary, batch=4)
    scores = sorted({f.score for f in faint.detections})
    middle = (scores[len(scores) // 2] + scores[len(scores) // 2 - 1]) / 2
    sure = filter_by_score(faint, middle)
    assert 0 < len(sure.detections) < len(faint.detections)
    assert {f.score for f in sure.detections} == {score for score in scores if score > middle}
    assert sure.uncertainty == pytest.approx(sum(f.entropy for f in sure.detections if f.is_top_class))


def test_the_batch_does_not_change_the_detections(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    for one, four in zip(*(look(model, images, vocabulary, batch=b) for b in (1, 4)), strict=True):
        assert one.routing.experts == four.routing.experts
        assert one.uncertainty == pytest.approx(four.uncertainty, rel=0.05)


def test_a_class_added_to_the_book_leaves_the_other_detections_as_they_are(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    new = ClassText("torn", "a torn edge", "mark")
    book = replace(vocabulary, classes=(new, *reversed(vocabulary.classes)))
    for before, after in zip(*(look(model, images, v, batch=4) for v in (vocabulary, book)), strict=True):
        assert before.routing == after.routing
        others = {(f.box.corners, f.label): f.probabilities for f in after.detections}
        # The new class suppresses nothing; it may only take places among the hundred that an image has.
        asked = [f for f in before.detections if f.score > after.detections[-1].score + 1e-4]
        assert asked
        for detection in asked:
            for name, probability in detection.probabilities.items():
                assert others[detection.box.corners, detection.label][name] == pytest.approx(
                    probability, abs=1e-5
                )


def test_a_place_is_found_as_every_class_that_is_likely_there_and_a_class_suppresses_itself_alone() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60]])
    probabilities = torch.tensor([[0.6, 0.59], [0.5, 0.61], [0.02, 0.3]])
    corners, rows, labels = nms_per_class(probabilities, boxes, 0.05)
    assert labels.tolist() == [1, 0, 1]
    assert corners.tolist() == boxes[[1, 0, 2]].tolist()
    assert rows.tolist() == probabilities[[1, 0, 2]].tolist()


def test_a_tie_of_two_classes_that_rounding_breaks_changes_no_detection() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [0, 1, 10, 11]])
    one = torch.tensor([[0.5, 0.5 + 1e-7], [0.4, 0.2], [0.2, 0.3]])
    other = torch.tensor([[0.5 + 1e-7, 0.5], [0.4, 0.2], [0.2, 0.3]])
    found = [nms_per_class(p, boxes, 0.05) for p in (one, other)]
    places = [
        {(*corners, label) for corners, label in zip(boxes.tolist(), labels.tolist(), strict=True)}
        for boxes, _, labels in found
    ]
    assert places[0] == places[1]


def test_the_routing_entropy_is_that_of_the_router_s_probabilities() -> None:
    probabilities = torch.tensor([[1.0, 0, 0, 0], [0.25] * 4, [0.5, 0.25, 0.125, 0.125]])
    chosen = RouterOutput(torch.tensor([[0, 1]] * 3), torch.full((3, 2), 0.5), probabilities)
    entropies = [_routing(chosen, image).entropy for image in range(3)]
    assert entropies == pytest.approx([0, math.log(4), 1.75 * math.log(2)], abs=1e-9)


def test_a_book_is_read_once_however_many_images_are_looked_at(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    encoder = HashEncoder()
    detector = Detector.load(model, encoder)
    detector.set_vocabulary(vocabulary)
    asked, read = len(encoder.encoded_texts), []
    for stage in (detector.model.class_encoder.text_prompt, detector.model.class_encoder.distillation):
        stage.register_forward_hook(lambda *_: read.append(1))
    assert len(list(detector.predict((p.image for p in images), batch=2))) == 6
    assert (len(encoder.encoded_texts) - asked, read) == (0, [])
    detector.set_vocabulary(vocabulary)
    assert read, "or nothing was listened to"


def test_nothing_is_found_where_nothing_is_likely() -> None:
    corners, rows, labels = nms_per_class(torch.full((4, 2), 0.01), torch.zeros(4, 4), 0.05)
    assert (corners.shape, rows.shape, labels.shape) == ((0, 4), (0, 2), (0,))


def test_a_description_that_was_edited_steers_and_a_class_that_was_removed_still_does(
    vocabulary: Vocabulary,
) -> None:
    dark, light = vocabulary.classes
    asked = Vocabulary((ClassText("new", "?"), replace(dark, description="a hole")), version="v2")
    assert conditioning_vocabulary(vocabulary, asked).classes == (replace(dark, description="a hole"), light)


def test_without_a_class_book_there_are_no_detections(model: Path, images: list[LabelledImage]) -> None:
    with pytest.raises(ModelError, match="read no class book"):
        list(Detector.load(model, HashEncoder()).predict([images[0].image]))


def test_a_folder_without_a_whole_model_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere holds no whole model"):
        load_model(tmp_path / "nowhere")
    (model / WEIGHTS).write_bytes(b"torn")
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        load_model(model)
    (model / CARD).write_text("{}")
    with pytest.raises(ModelError, match="holds no whole model"):
        load_model(model)


def test_another_text_encoder_is_refused(model: Path) -> None:
    encoder = HashEncoder()
    encoder.width = 8
    with pytest.raises(ModelError, match="hash is 8 wide; the model expects 16"):
        Detector.load(model, encoder)


def reshaped(model: Path, **other: dict[str, float]) -> Path:
    """The same weights under a card that says something else of how images are shown, or nothing at all."""
    card = json.loads((model / CARD).read_text())
    for name in ("preprocessing", "tiles"):
        del card["config"][name]
    card["config"] |= other
    folder = model.with_name("reshaped")
    shutil.copytree(model, folder, dirs_exist_ok=True)
    (folder / CARD).write_text(json.dumps(card))
    return folder


def test_a_image_is_prepared_as_the_model_s_card_says(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    side = SMALL.image_px
    plain = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    shown = []
    for name, pixels in (("plain", plain), ("dark", apply_gamma(plain, 2.0))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        shown.append(replace(images[0].image, path=tmp_path / f"{name}.png", width=side, height=side))
    by_card, by_hand = (
        look(folder, [LabelledImage(image, ())], vocabulary, batch=1)
        for folder, image in ((reshaped(model, preprocessing={"gamma": 2.0}), shown[0]), (model, shown[1]))
    )
    assert by_card == by_hand


def test_a_card_that_says_nothing_of_it_means_no_preprocessing_and_no_tiles(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    assert look(reshaped(model), images, vocabulary, 4) == look(model, images, vocabulary, 4)


def test_detections_through_the_cache_are_the_same(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    cache = CacheConfig(tmp_path / "cache")
    plain = look(model, images, vocabulary, batch=4)
    assert look(model, images, vocabulary, 4, cache) == plain
    gone = [replace(p, image=replace(p.image, path=Path("gone"))) for p in images]
    assert look(model, gone, vocabulary, 4, cache) == plain


def test_tiles_are_looked_through_where_the_model_s_card_has_them(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    plain = look(model, images, vocabulary, 4)
    assert look(reshaped(model, tiles={"px": 128}), images, vocabulary, 4) == plain  # they fit into one
    through = look(reshaped(model, tiles={"px": 64}), images, vocabulary, 4)
    assert [r.key for r in through] == [p.image.key for p in images]
    for one, other in zip(through, plain, strict=True):
        assert one.detections != other.detections
        assert all(f.box.inside(100, 80, tolerance=0.0) for f in one.detections)
        assert any(f.box.x2 > 64 for f in one.detections)
        assert math.isclose(sum(one.routing.weights), 1.0, abs_tol=1e-5)
