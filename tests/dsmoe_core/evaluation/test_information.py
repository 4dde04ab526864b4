"""Mutual information of labels, and the specialisation of experts at the true boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.evaluation.information import information, mutual_information
from dsmoe_core.evaluation.specialisation import specialisation
from dsmoe_core.schema import Annotation, Box, ImageRecord, LabelledImage

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=40)


def test_equal_labels_share_their_entropy_and_independent_ones_nothing() -> None:
    labels = np.array([0, 0, 1, 1])
    assert mutual_information(labels, labels) == pytest.approx(1.0)
    assert mutual_information(labels, np.array([0, 1, 0, 1])) == pytest.approx(0.0)


@given(LABELS)
def test_mutual_information_is_symmetric_and_at_most_the_entropy(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    value = mutual_information(first, second)
    assert value == pytest.approx(mutual_information(second, first))
    assert -1e-9 <= value <= mutual_information(second, second) + 1e-9


def test_information_is_compared_with_permutations() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 300)
    images = np.arange(300)
    related = information(classes, classes, images, permutations=50)
    unrelated = information(rng.integers(0, 3, 300), classes, images, permutations=50)
    assert related.share == pytest.approx(1.0)
    assert related.p == pytest.approx(1 / 51)
    assert related.by_chance < 0.05
    assert unrelated.share < 0.05
    assert unrelated.p > 0.05


def test_information_about_a_constant_label_is_zero() -> None:
    assert information(np.array([0, 1, 2]), np.zeros(3, dtype=int), np.arange(3)) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("other_classes", [0.0, 0.1], ids=["one class an image", "classes mixed"])
def test_boxes_of_one_image_are_no_independent_evidence(other_classes: float) -> None:
    """Experts that depend on the image alone: few of the tests are significant, as the level says."""
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(60):
        image = np.repeat(np.arange(60), rng.integers(1, 5, 60))
        classes, experts = (rng.integers(0, 4, 60)[image] for _ in range(2))
        mixed = rng.random(len(image)) < other_classes
        classes = np.where(mixed, rng.integers(0, 4, len(image)), classes)
        p_values.append(information(experts, classes, image, permutations=60).p)
    assert sum(p <= 0.05 for p in p_values) <= 8  # 3 are expected; of single boxes it would be most


def test_related_labels_are_found_where_images_have_several_boxes() -> None:
    image = np.repeat(np.arange(40), np.tile([1, 2, 3, 4], 10))
    classes = np.random.default_rng(0).integers(0, 3, len(image))
    found = information(classes, classes, image, permutations=50)
    assert found.share == pytest.approx(1.0)
    assert found.p == pytest.approx(1 / 51)


def test_order_of_the_boxes_does_not_matter_to_the_permutations() -> None:
    rng = np.random.default_rng(0)
    image, experts = np.repeat(np.arange(30), 2), rng.integers(0, 3, 60)
    classes = rng.integers(0, 3, 60)
    order = np.argsort(rng.random(60))
    kept = information(experts, classes, image, permutations=400)
    mixed = information(experts[order], classes[order], image[order], permutations=400)
    assert mixed.share == pytest.approx(kept.share)
    assert mixed.by_chance == pytest.approx(kept.by_chance, rel=0.15)


def labelled(key: str, labels: list[str]) -> LabelledImage:
    image = ImageRecord(key, f"{key}.png", Path(f"{key}.png"), 20, 20)
    return LabelledImage(image, tuple(Annotation(Box(1, 1, 9, 9), name) for name in labels))


def test_specialisation_weighs_the_experts_by_the_boxes_of_each_class() -> None:
    truth = [labelled("a", ["open", "open"]), labelled("c", []), labelled("b", ["short"])]
    weights = np.array([[0.25, 0, 0.75, 0], [0.25, 0, 0.75, 0], [0, 0.6, 0.4, 0]])
    result = specialisation(weights, truth, ["open", "short", "spur"], groups=["x", "x", "y"])  # c has no box
    assert result is not None
    assert result.weights.tolist() == [[0.25, 0, 0.75, 0], [0, 0.6, 0.4, 0], [0, 0, 0, 0]]
    assert result.leading.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 0])
    assert result.idle == (0, 3)
    assert result.by_class.share == pytest.approx(1.0)
    assert result.by_group is not None
    assert result.by_group.share == pytest.approx(1.0)


def test_without_boxes_or_router_there_is_no_specialisation() -> None:
    assert specialisation(np.zeros((0, 4)), [labelled("a", [])], ["open"]) is None
    assert specialisation(np.zeros((1, 0)), [labelled("a", ["open"])], ["open"]) is None


def test_rows_of_weights_must_be_those_of_the_boxes() -> None:
    with pytest.raises(ValueError, match="2 rows"):
        specialisation(np.ones((2, 4)), [labelled("a", ["open"])], ["open"])
