"""Raw scores of single detections."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.checkpoint import write_tensors
from dsmoe_core.errors import ModelError
from dsmoe_core.outputs import GatingOutput
from dsmoe_core.runtimes.next_experts import next_best
from dsmoe_core.runtimes.protocol import NextExperts, RouterOutput
from dsmoe_core.uncertainty.class_distribution import class_scores, fit_class_temperature
from dsmoe_core.uncertainty.description import TextColumns, text_doubt
from dsmoe_core.uncertainty.localisation import box_spread
from dsmoe_core.uncertainty.novelty import FILE, KnownFeatures, box_features, known_features
from dsmoe_core.uncertainty.routing import expert_disagreement, router_entropy


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5), st.floats(0.1, 10)
)
def test_class_scores_are_in_their_ranges(rows: list[list[float]], temperature: float) -> None:
    table = np.array(rows)
    best = class_scores(table, table.argmax(1), temperature)
    worst = class_scores(table, table.argmin(1), temperature)
    assert ((best.entropy >= 0) & (best.entropy <= 1 + 1e-9)).all()
    assert ((best.margin >= -1e-9) & (best.margin <= 1 + 1e-9)).all()
    assert ((worst.margin >= 1 - 1e-9) & (worst.margin <= 2 + 1e-9)).all()
    np.testing.assert_array_equal(best.entropy, worst.entropy)


def test_class_scores_of_known_distributions() -> None:
    equal = class_scores(np.array([[0.3, 0.3]]), np.array([0]))
    assert (equal.entropy[0], equal.margin[0]) == pytest.approx((1, 1))
    # logits 0 and ln 3: a distribution of 1/4 and 3/4
    known = class_scores(np.array([[0.5, 0.75]]), np.array([1]))
    assert known.margin[0] == pytest.approx(0.5)
    single = class_scores(np.array([[0.4]]), np.array([0]))
    assert (single.entropy[0], single.margin[0]) == (0, 0)


def test_temperature_is_recovered() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 4))
    q = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    true = (q.cumsum(1) > rng.random((len(q), 1))).argmax(1)
    overconfident = 1 / (1 + np.exp(-3 * logits))
    assert fit_class_temperature(overconfident, true) == pytest.approx(3, rel=0.1)
    assert fit_class_temperature(overconfident[:5], true[:5]) == 1.0


def spread(*others: tuple[float, float]) -> float:
    """Spread of a box of 10 x 10 with a score of 0.8 and of other cells: width and probability."""
    boxes = torch.tensor([[0.0, 0, 10, 10], *([0, 0, 10 * width, 10] for width, _ in others)])
    probabilities = torch.tensor([[0.8, 0.1], *([p, 0.1] for _, p in others)])
    kept, labels = boxes[:1], torch.tensor([0])
    return float(box_spread(kept, labels, torch.tensor([0.8]), probabilities, boxes, nms_iou=0.6)[0])


def test_localisation_counts_the_suppressed_boxes() -> None:
    assert spread() == pytest.approx(0.4)
    assert spread((1.0, 0.8)) == pytest.approx(0.2)
    assert spread((1.0, 0.8), (1.0, 0.8), (1.0, 0.8)) == pytest.approx(0.1)
    assert spread((0.8, 0.8)) == pytest.approx((0.4 + 0.2) / 2, abs=1e-6)
    assert spread((0.8, 0.4)) == pytest.approx((0.4 * 0.8 + 0.2 * 0.4) / 1.2, abs=1e-6)
    assert spread((0.5, 0.8)) == pytest.approx(0.4)  # not suppressed by the kept box


def test_localisation_uses_the_boxes_of_its_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    probabilities = torch.tensor([[0.8, 0.0], [0.0, 0.8]])
    values = box_spread(
        boxes, torch.tensor([0, 1]), torch.tensor([0.8, 0.8]), probabilities, boxes, nms_iou=0.6
    )
    assert values.tolist() == pytest.approx([0.4, 0.4])


def test_description_is_the_mean_doubt_over_the_texts_of_the_class() -> None:
    columns = TextColumns(3, (0, 0, 2))
    logits = torch.tensor([[1.0, 0.0, -1.0, 0.0, 2.0, 5.0]])
    doubt = [float(text_doubt(logits, torch.tensor([label]), columns)[0]) for label in (0, 1, 2)]
    assert doubt[0] == pytest.approx((0.5 + 1 / (1 + math.exp(2))) / 2)
    assert math.isnan(doubt[1])
    assert doubt[2] == pytest.approx(1 / (1 + math.exp(4)))


FEATURES = [torch.tensor(v) for v in ([1.0, 0.0], [2.0, 0.0], [0.0, 1.0])]


def test_novelty_is_the_distance_from_the_nearest_known_class() -> None:
    known = known_features(FEATURES, [0, 0, 1], ("a", "b"))
    novelty = known.novelty(torch.tensor([[3.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]), ["a", "b", "a"])
    assert novelty.nearest.tolist() == pytest.approx([0, 0, 1])
    assert novelty.other.tolist() == pytest.approx([1, 1, 1])
    of_a_wrong_class = known.novelty(torch.tensor([[3.0, 0.0], [3.0, 0.0]]), ["b", "c"])
    assert of_a_wrong_class.other.tolist() == pytest.approx([0, 0])
    assert known.novelty(torch.zeros(0, 2), []).nearest.shape == (0,)


def test_without_any_training_box_everything_is_new(tmp_path: Path) -> None:
    known_features([], [], ("a", "b")).save(tmp_path)
    none = KnownFeatures.load(tmp_path)
    assert none is not None
    novelty = none.novelty(torch.rand(3, 16), ["a", "b", "a"])
    assert novelty.nearest.tolist() == [math.inf] * 3
    assert novelty.other.isnan().all()
    assert none.novelty(torch.rand(0, 16), []).nearest.shape == (0,)


def test_class_that_the_class_book_lacks_is_not_known() -> None:
    known = known_features(FEATURES, [0, 0, 1], ("a", "b"))
    point = torch.tensor([[1.0, 0.0]])
    only = known.restricted(["b", "c"]).novelty(point, ["b"])
    assert float(only.nearest) == pytest.approx(1)
    assert math.isnan(float(only.other))
    assert float(known.restricted([]).novelty(point, ["b"]).nearest) == math.inf


def test_known_features_are_stored_with_the_model(tmp_path: Path) -> None:
    assert KnownFeatures.load(tmp_path) is None
    known = known_features(FEATURES, [0, 0, 1], ("a", "b"))
    known.save(tmp_path)
    loaded = KnownFeatures.load(tmp_path)
    assert loaded is not None
    assert (loaded.classes, loaded.labels.tolist()) == (("a", "b"), [0, 0, 1])
    torch.testing.assert_close(loaded.features, known.features)
    (tmp_path / FILE).write_bytes(b"damaged")
    with pytest.raises(ModelError, match="known_features"):
        KnownFeatures.load(tmp_path)


def test_stored_boxes_are_limited_per_class() -> None:
    vectors = [torch.rand(4) for _ in range(320)]
    known = known_features(vectors, [0] * 300 + [1] * 20, ("a", "b"))
    assert torch.bincount(known.labels).tolist() == [200, 20]
    assert known.features.norm(dim=1).tolist() == pytest.approx([1.0] * 220, abs=1e-5)


def test_features_of_a_box_are_the_mean_of_f_enc_in_it() -> None:
    f_enc = torch.zeros(2, 8, 8)
    f_enc[0, 2:4, 4:6] = 3.0  # pixels 32 to 48 across and 16 to 32 down, of 64
    f_enc[1] = torch.arange(8.0)[None].expand(8, 8)  # grows by 1 in 8 pixels
    boxes = torch.tensor([[32.0, 16, 48, 32], [0, 40, 16, 56]])
    features = box_features(f_enc, boxes, 64)
    torch.testing.assert_close(features, torch.tensor([[3.0, 4.5], [0.0, 0.5]]))
    rough = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = box_features(rough, torch.tensor([[0.0, 0, 64, 64]]), 64)
    torch.testing.assert_close(whole[0], rough.mean(dim=(1, 2)))
    assert box_features(f_enc, torch.zeros(0, 4), 64).shape == (0, 2)


def test_features_of_an_earlier_version_are_not_compared(tmp_path: Path) -> None:
    tensors = {"features": torch.eye(2).half(), "labels": torch.tensor([0, 1])}
    write_tensors(tmp_path / FILE, tensors, {"classes": '["a", "b"]'})
    assert KnownFeatures.load(tmp_path) is None


def test_router_entropy_is_that_at_the_centre() -> None:
    probabilities = torch.tensor([[[[1.0, 0.5]], [[0.0, 0.5]]]])
    routing = RouterOutput(torch.zeros(1, 1, 1, 2, dtype=torch.long), torch.ones(1, 1, 1, 2), probabilities)
    boxes = torch.tensor([[0.0, 0, 20, 60], [40.0, 0, 60, 60]])
    assert router_entropy(routing, 0, boxes, 64).tolist() == pytest.approx([0, 1], abs=1e-6)


def test_disagreement_combines_box_and_probability() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]]).expand(3, 4)
    other = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10]]])
    following = NextExperts(torch.tensor([[[0.0], [0.0], [40.0]]]), other)
    values = expert_disagreement(
        following, 0, torch.arange(3), torch.zeros(3, dtype=torch.long), boxes, torch.full((3,), 0.5)
    )
    assert values.tolist() == pytest.approx([0, 0.5, 0.5])


@pytest.mark.parametrize(("experts", "expected"), [(5, [2, 1]), (3, [2, 1])])
def test_next_best_experts_follow_the_selected_ones(experts: int, expected: list[int]) -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])[-experts:] if experts == 5 else torch.tensor([3.0, 1, 2])
    ranked = logits.argsort(descending=True)
    shape = (1, experts, 1, 1)
    gated = GatingOutput(
        ranked[:2].view(1, 2, 1, 1),
        torch.full((1, 2, 1, 1), 0.5),
        logits.softmax(0).view(shape),
        torch.zeros(experts, 4),
        logits.view(shape),
    )
    following = next_best(gated, torch.zeros(experts))
    assert following.experts.flatten().tolist() == expected
    assert float(following.weights.sum()) == pytest.approx(1)
    assert (following.weights.flatten().diff() < 0).all()
