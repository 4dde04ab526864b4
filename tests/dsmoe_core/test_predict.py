"""The detector: coordinates, streaming, class changes, suppression, preprocessing and tiles."""

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
from dsmoe_core.predict import Detector, _routing, image_embedding, leading_experts
from dsmoe_core.runtimes.loading import RuntimeOptions
from dsmoe_core.runtimes.protocol import RouterOutput
from dsmoe_core.schema import Annotation, ClassText, LabelledImage, Prediction, Vocabulary
from dsmoe_core.suppression import nms_per_class
from dsmoe_core.text_embeddings import conditioning_vocabulary
from dsmoe_core.uncertainty import filter_by_score
from dsmoe_core.uncertainty.calibration import fit_calibration
from dsmoe_core.uncertainty.novelty import NEIGHBOURS
from dsmoe_core.uncertainty.training_features import training_features


@pytest.fixture
def model(tmp_path: Path, vocabulary: Vocabulary) -> Path:
    torch.manual_seed(0)
    network = build_full_network(SMALL)
    with torch.no_grad():
        for level in network.head.levels:
            level.bias.fill_(0.0)  # so that the untrained network has detections
    save_model(tmp_path / "model", network, SMALL, vocabulary, {})
    return tmp_path / "model"


def predict(
    model: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    batch: int,
    cache: CacheConfig | None = None,
) -> list[Prediction]:
    detector = Detector.load(model, HashEncoder(), cache=cache)
    detector.set_vocabulary(vocabulary)
    return list(detector.predict((p.image for p in images), batch=batch))


def test_predictions_are_complete_and_inside_the_image(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    results = predict(model, images, vocabulary, batch=4)
    assert [r.key for r in results] == [p.image.key for p in images]
    for result in results:
        assert result.detections
        assert result.version.endswith("+v1")
        assert SMALL.top_k <= len(result.routing.experts) <= SMALL.experts
        assert result.embedding is not None
        assert (result.embedding.shape, result.embedding.dtype) == ((SMALL.width,), np.float32)
        assert np.linalg.norm(result.embedding) == pytest.approx(1, abs=1e-5)
        assert {f.expert for f in result.detections} <= set(result.routing.experts)
        assert math.isclose(sum(result.routing.weights), 1.0, abs_tol=1e-5)
        top_class = [f for f in result.detections if f.is_top_class]
        assert result.uncertainty == pytest.approx(sum(f.entropy for f in top_class))
        scores = [f.score for f in result.detections]
        assert scores == sorted(scores, reverse=True)
        for detection in result.detections:
            assert detection.box.inside(100, 80, tolerance=0.0)
            assert detection.probabilities.keys() == {"dark", "light"}
            assert detection.probabilities[detection.label] == detection.score
            assert 0 <= detection.entropy <= math.log(2) + 1e-9


def test_filtering_by_score_recomputes_the_uncertainty(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    (unfiltered, *_) = predict(model, images, vocabulary, batch=4)
    scores = sorted({f.score for f in unfiltered.detections})
    middle = (scores[len(scores) // 2] + scores[len(scores) // 2 - 1]) / 2
    filtered = filter_by_score(unfiltered, middle)
    assert 0 < len(filtered.detections) < len(unfiltered.detections)
    assert {f.score for f in filtered.detections} == {score for score in scores if score > middle}
    assert filtered.uncertainty == pytest.approx(
        sum(f.entropy for f in filtered.detections if f.is_top_class)
    )


def test_detections_have_the_scores_that_model_and_class_book_allow(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    plain = predict(model, images, vocabulary, batch=4)
    always = {"class", "class_margin", "localisation", "routing_entropy"}
    for detection in (d for p in plain for d in p.detections):
        has_texts = detection.label == "dark"  # the only class with a paraphrase
        assert detection.uncertainty.keys() == always | ({"description"} if has_texts else set())
        assert detection.risks == {}
    detector = Detector.load(model, HashEncoder(), second_selection=True)
    detector.set_vocabulary(vocabulary)
    truth = [
        replace(image, annotations=tuple(Annotation(d.box, d.label) for d in p.detections[:6]))
        for image, p in zip(images, plain, strict=True)
    ]
    detector.known = training_features(detector, truth, vocabulary.names)
    assert set(detector.known.labels.tolist()) == {d.label == "light" for p in truth for d in p.annotations}
    detector.calibration = fit_calibration({p.key: p for p in plain}, truth, vocabulary.names)
    detector.set_vocabulary(vocabulary)
    for one, other in zip(detector.predict(p.image for p in images), plain, strict=True):
        assert one.detections[0].uncertainty.keys() >= always | {"novelty", "routing"}
        assert one.detections[0].risks.keys() >= {"correct", "localisation_75", "routing_entropy"}
        assert one.risks.keys() == {"missed", "corrections"}
        assert len(one.detections) == len(other.detections)


def test_training_boxes_are_known_by_their_own_class(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    detector = Detector.load(model, HashEncoder(), RuntimeOptions(precision="fp32"))
    detector.set_vocabulary(vocabulary)
    (found,) = detector.predict([images[0].image])
    width, height = images[0].image.width, images[0].image.height
    inside = [d for d in found.detections if min(d.box.corners[:2]) > 0]  # not cut at the edge
    inside = [d for d in inside if d.box.corners[2] < width and d.box.corners[3] < height]
    sizes = sorted(inside, key=lambda d: d.box.width * d.box.height)
    of_class = {"dark": sizes[0], "light": sizes[-1]}
    boxes = [Annotation(d.box, label) for label, d in of_class.items() for _ in range(NEIGHBOURS)]
    known = training_features(detector, [replace(images[0], annotations=tuple(boxes))], vocabulary.names)
    for label, detection in of_class.items():
        detector.known = known.restricted([label])
        detector.set_vocabulary(vocabulary)
        (prediction,) = detector.predict([images[0].image])
        novelty = {d.box: d.uncertainty["novelty"] for d in prediction.detections}
        assert novelty[detection.box] == pytest.approx(0, abs=1e-4)
        assert max(novelty.values()) > 1e-3


def test_texts_of_the_classes_change_no_detection(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    detector = Detector.load(model, HashEncoder(), RuntimeOptions(precision="fp32"))
    detector.set_vocabulary(vocabulary)
    records = [p.image for p in images]
    for (_, with_texts, i), (_, without, _) in zip(
        detector.outputs(records), detector.outputs(records, texts=False), strict=True
    ):
        assert (with_texts.logits.shape[-1], without.logits.shape[-1]) == (4, 2)
        assert torch.equal(with_texts.boxes[i], without.boxes[i])
        torch.testing.assert_close(with_texts.logits[i, :, :2], without.logits[i])


def test_second_selection_keeps_the_output(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    options = RuntimeOptions(precision="fp32")
    records = [p.image for p in images[:2]]
    outputs = []
    for second in (False, True):
        detector = Detector.load(model, HashEncoder(), options, second_selection=second)
        detector.set_vocabulary(vocabulary)
        outputs.append(next(detector.outputs(records))[1])
    plain, both = outputs
    assert plain.next_experts is None
    assert both.next_experts is not None
    torch.testing.assert_close(both.logits, plain.logits)
    torch.testing.assert_close(both.boxes, plain.boxes)
    assert both.next_experts.logits.shape == both.logits.shape
    assert not torch.allclose(both.next_experts.logits, both.logits)


def test_embedding_ignores_the_padding() -> None:
    features = torch.zeros(2, 4, 4)
    features[0, 1:3], features[1, 0] = 3.0, 100.0
    embedding = image_embedding(features, (0, 20, 64, 44), 64)
    np.testing.assert_allclose(embedding, [1, 0])
    np.testing.assert_allclose(image_embedding(features, (0, 0, 64, 64), 64), [0.06, 1], atol=2e-3)


def test_batch_size_does_not_change_the_predictions(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    for one, four in zip(*(predict(model, images, vocabulary, batch=b) for b in (1, 4)), strict=True):
        assert set(one.routing.experts) == set(four.routing.experts)
        assert one.uncertainty == pytest.approx(four.uncertainty, rel=0.05)


def test_added_class_does_not_change_other_detections(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    new = ClassText("torn", "a torn edge", "mark")
    book = replace(vocabulary, classes=(new, *reversed(vocabulary.classes)))
    for before, after in zip(*(predict(model, images, v, batch=4) for v in (vocabulary, book)), strict=True):
        assert before.routing == after.routing
        others = {(f.box.corners, f.label): f.probabilities for f in after.detections}
        # Detections of the new class only compete for the 100 detections of an image.
        compared = [f for f in before.detections if f.score > after.detections[-1].score + 1e-4]
        assert compared
        for detection in compared:
            for name, probability in detection.probabilities.items():
                assert others[detection.box.corners, detection.label][name] == pytest.approx(
                    probability, abs=1e-5
                )


def test_suppression_is_within_the_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60]])
    probabilities = torch.tensor([[0.6, 0.59], [0.5, 0.61], [0.02, 0.3]])
    corners, rows, labels, _ = nms_per_class(probabilities, boxes, 0.05)
    assert labels.tolist() == [1, 0, 1]
    assert corners.tolist() == boxes[[1, 0, 2]].tolist()
    assert rows.tolist() == probabilities[[1, 0, 2]].tolist()


def test_rounding_of_equal_probabilities_changes_no_detection() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [0, 1, 10, 11]])
    first = torch.tensor([[0.5, 0.5 + 1e-7], [0.4, 0.2], [0.2, 0.3]])
    second = torch.tensor([[0.5 + 1e-7, 0.5], [0.4, 0.2], [0.2, 0.3]])
    results = [nms_per_class(p, boxes, 0.05) for p in (first, second)]
    detections = [
        {(*corners, label) for corners, label in zip(boxes.tolist(), labels.tolist(), strict=True)}
        for boxes, _, labels, _ in results
    ]
    assert detections[0] == detections[1]


def test_routing_entropy_is_that_of_the_router() -> None:
    probabilities = torch.tensor([[1.0, 0, 0, 0], [0.25] * 4, [0.5, 0.25, 0.125, 0.125]])
    output = RouterOutput(
        torch.tensor([[0, 1]] * 3)[..., None, None],
        torch.full((3, 2, 1, 1), 0.5),
        probabilities[..., None, None],
    )
    entropies = [_routing(output, image).entropy for image in range(3)]
    assert entropies == pytest.approx([0, math.log(4), 1.75 * math.log(2)], abs=1e-9)


def test_routing_of_an_image_is_the_mean_over_its_positions() -> None:
    """Two positions: expert 2 leads at the left one, expert 0 at the right one."""
    experts = torch.tensor([[[[2, 0]], [[1, 1]]]])
    weights = torch.tensor([[[[0.75, 0.5]], [[0.25, 0.5]]]])
    probabilities = torch.tensor([[[[0.0, 1.0]], [[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 0.0]]]])
    output = RouterOutput(experts, weights, probabilities)
    routing = _routing(output, 0)
    assert dict(zip(routing.experts, routing.weights, strict=True)) == {2: 0.375, 1: 0.375, 0: 0.25}
    assert routing.entropy == 0.0
    boxes = torch.tensor([[0.0, 0, 20, 60], [60.0, 10, 64, 20], [20.0, 0, 42, 64]])
    assert leading_experts(output, 0, boxes, 64) == [2, 0, 2]
    assert leading_experts(None, 0, boxes, 64) == [None] * 3


def test_weights_at_boxes_are_those_of_the_positions_of_their_centres(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    detector = Detector.load(model, HashEncoder(), RuntimeOptions(precision="fp32"))
    detector.set_vocabulary(vocabulary)
    predictions = list(detector.predict([i.image for i in images], min_score=0.0))
    asked = [(i.image, [d.box for d in p.detections[:5]]) for i, p in zip(images, predictions, strict=True)]
    for prediction, weights in zip(predictions, detector.weights_at(asked), strict=True):
        assert weights.shape == (min(5, len(prediction.detections)), SMALL.experts)
        assert weights.sum(1) == pytest.approx(1.0, abs=1e-5)
        for detection, row in zip(prediction.detections, weights, strict=False):
            left, top, right, bottom = detection.box.corners
            if left > 1 and top > 1 and right < 99 and bottom < 79:  # not clipped to the image
                assert row.argmax() == detection.expert


def test_classes_are_encoded_once(model: Path, images: list[LabelledImage], vocabulary: Vocabulary) -> None:
    encoder = HashEncoder()
    detector = Detector.load(model, encoder)
    detector.set_vocabulary(vocabulary)
    encoded_before, calls = len(encoder.encoded_texts), []
    for stage in (detector.model.class_encoder.text_prompt, detector.model.class_encoder.distillation):
        stage.register_forward_hook(lambda *_: calls.append(1))
    assert len(list(detector.predict((p.image for p in images), batch=2))) == 6
    assert (len(encoder.encoded_texts) - encoded_before, calls) == (0, [])
    detector.set_vocabulary(vocabulary)
    assert calls  # the hooks work


def test_low_probabilities_give_no_detection() -> None:
    corners, rows, labels, _ = nms_per_class(torch.full((4, 2), 0.01), torch.zeros(4, 4), 0.05)
    assert (corners.shape, rows.shape, labels.shape) == ((0, 4), (0, 2), (0,))


def test_conditioning_uses_edited_descriptions_and_removed_classes(
    vocabulary: Vocabulary,
) -> None:
    dark, light = vocabulary.classes
    edited = Vocabulary((ClassText("new", "?"), replace(dark, description="a hole")), version="v2")
    assert conditioning_vocabulary(vocabulary, edited).classes == (replace(dark, description="a hole"), light)


def test_predict_needs_a_vocabulary(model: Path, images: list[LabelledImage]) -> None:
    with pytest.raises(ModelError):
        list(Detector.load(model, HashEncoder()).predict([images[0].image]))


def test_incomplete_model_folder_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        load_model(tmp_path / "nowhere")
    (model / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(ModelError, match=WEIGHTS):
        load_model(model)
    (model / CARD).write_text("{}")
    with pytest.raises(ModelError, match="model"):
        load_model(model)


def test_other_text_encoder_is_refused(model: Path) -> None:
    encoder = HashEncoder()
    encoder.width = 8
    with pytest.raises(ModelError, match=r"hash is 8 .* 16"):
        Detector.load(model, encoder)


def with_config(model: Path, **other: dict[str, float]) -> Path:
    """A copy of the model with other preprocessing and tile settings, or without them."""
    card = json.loads((model / CARD).read_text())
    for name in ("preprocessing", "tiles"):
        del card["config"][name]
    card["config"] |= other
    folder = model.with_name("changed")
    shutil.copytree(model, folder, dirs_exist_ok=True)
    (folder / CARD).write_text(json.dumps(card))
    return folder


def test_preprocessing_follows_the_card(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    side = SMALL.image_px
    plain = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    records = []
    for name, pixels in (("plain", plain), ("dark", apply_gamma(plain, 2.0))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        records.append(replace(images[0].image, path=tmp_path / f"{name}.png", width=side, height=side))
    by_card, by_hand = (
        predict(folder, [LabelledImage(image, ())], vocabulary, batch=1)
        for folder, image in (
            (with_config(model, preprocessing={"gamma": 2.0}), records[0]),
            (model, records[1]),
        )
    )
    assert by_card == by_hand


def test_card_without_preprocessing_and_tiles_uses_neither(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    assert predict(with_config(model), images, vocabulary, 4) == predict(model, images, vocabulary, 4)


def test_cache_does_not_change_the_predictions(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    cache = CacheConfig(tmp_path / "cache")
    plain = predict(model, images, vocabulary, batch=4)
    assert predict(model, images, vocabulary, 4, cache) == plain
    without_files = [replace(p, image=replace(p.image, path=Path("gone"))) for p in images]
    assert predict(model, without_files, vocabulary, 4, cache) == plain


def test_model_with_tiles_predicts_on_tiles(
    model: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    plain = predict(model, images, vocabulary, 4)
    assert (
        predict(with_config(model, tiles={"px": 128}), images, vocabulary, 4) == plain
    )  # one tile covers the image
    tiled = predict(with_config(model, tiles={"px": 64}), images, vocabulary, 4)
    assert [r.key for r in tiled] == [p.image.key for p in images]
    for one, other in zip(tiled, plain, strict=True):
        assert one.detections != other.detections
        assert all(f.box.inside(100, 80, tolerance=0.0) for f in one.detections)
        assert any(f.box.x2 > 64 for f in one.detections)
        assert math.isclose(sum(one.routing.weights), 1.0, abs_tol=1e-5)
