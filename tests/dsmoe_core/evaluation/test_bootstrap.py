"""Average precision and bootstrap, compared with pycocotools on repeated images."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import CLASSES, labelled, prediction, random_scene, resampled_scene

from dsmoe_core.evaluation.average_precision import average_precision, average_precision_of_resamples
from dsmoe_core.evaluation.bootstrap import (
    compare,
    expanded_interval,
    interval,
    mean_over_classes,
    resample_counts,
    resampled_map,
    resampled_precision_recall,
)
from dsmoe_core.evaluation.coco_metrics import coco_tables
from dsmoe_core.evaluation.matching import match_images
from dsmoe_core.evaluation.operating_point import operating_point
from dsmoe_core.schema import Box


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_equals_that_of_pycocotools(seed: int) -> None:
    tables = coco_tables(*random_scene(seed), CLASSES)
    for c, matches in enumerate(tables.matches):
        ours = average_precision(matches.correct, float(matches.boxes.sum()))
        assert ours == pytest.approx(tables.precision[:, :, c, 0].mean(1))


@pytest.mark.parametrize("seed", range(4))
def test_resampled_metrics_equal_those_of_repeated_images(seed: int) -> None:
    scene = random_scene(seed)
    counts = resample_counts(len(scene[1]), 5, seed)
    maps = resampled_map(coco_tables(*scene, CLASSES), counts)
    shares = resampled_precision_recall(match_images(*scene), 0.4, counts)
    for b, count in enumerate(counts):
        repeated = resampled_scene(scene, count.tolist())
        tables = coco_tables(*repeated, CLASSES)
        for c, name in enumerate(CLASSES):
            expected = tables.mean(label=name) or (np.nan, np.nan)
            assert tuple(maps[b, c]) == pytest.approx(expected, nan_ok=True)
        assert mean_over_classes(maps)[b] == pytest.approx(tables.mean())
        point = operating_point(match_images(*repeated), CLASSES, 0.4).total
        assert tuple(shares[b]) == pytest.approx((point.precision, point.recall, point.f1))


def test_resamples_have_all_images_and_depend_on_the_seed() -> None:
    counts = resample_counts(7, 50, 1)
    assert (counts.sum(1) == 7).all()
    assert (counts == resample_counts(7, 50, 1)).all()
    assert (counts != resample_counts(7, 50, 2)).any()
    assert counts.mean(0) == pytest.approx(np.ones(7), abs=0.5)


def test_images_of_a_group_are_resampled_together() -> None:
    counts = resample_counts(5, 400, 1, ["a", "b", "a", "c", "b"])
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 1] == counts[:, 4]).all()
    assert (counts[:, [0, 1, 3]].sum(1) == 3).all()  # as many groups as there are
    assert counts.mean(0) == pytest.approx(np.ones(5), abs=0.2)


def test_class_without_boxes_is_not_in_the_mean() -> None:
    box = Box(0, 0, 10, 10)
    tables = coco_tables({"p": prediction("p", (box, "spur", 0.9))}, [labelled("p", (box, "spur"))], CLASSES)
    values = resampled_map(tables, np.array([[1], [0]]))
    assert values[0, 0].tolist() == pytest.approx([1, 1])
    assert np.isnan(values[0, 1:]).all()
    assert np.isnan(values[1]).all()
    assert mean_over_classes(values)[0] == pytest.approx(1)
    assert np.isnan(mean_over_classes(values)[1]).all()
    assert interval(mean_over_classes(values)[1:, 0]) is None


def test_interval_covers_the_true_recall() -> None:
    rng, box = np.random.default_rng(0), Box(0, 0, 10, 10)
    (hit,) = match_images({"p": prediction("p", (box, "spur", 0.9))}, [labelled("p", (box, "spur"))])
    (miss,) = match_images({}, [labelled("p", (box, "spur"))])
    covered = 0
    for trial in range(100):
        matched = [hit if rng.random() < 0.7 else miss for _ in range(60)]
        low, high = interval(
            resampled_precision_recall(matched, 0.5, resample_counts(60, 300, trial))[:, 1]
        ) or (1, 0)
        covered += low <= 0.7 <= high
    assert covered >= 86  # of 100; the expected 95, minus four standard errors


def test_comparison_with_itself_and_with_a_better_model() -> None:
    scene = random_scene(3, images=20)
    counts = resample_counts(20, 200, 0)
    tables = coco_tables(*scene, CLASSES)
    itself = mean_over_classes(resampled_map(tables, counts))[:, 0]
    same = compare(0.0, itself, itself)
    assert same is not None
    assert (same.ci95, same.p) == ((0.0, 0.0), 1.0)
    perfect = {
        p.image.key: prediction(p.image.key, *((a.box, a.label, 0.9) for a in p.annotations))
        for p in scene[1]
    }
    best = mean_over_classes(resampled_map(coco_tables(perfect, scene[1], CLASSES), counts))[:, 0]
    better = compare(float(best.mean() - itself.mean()), best, itself)
    assert better is not None
    assert better.ci95[0] > 0
    assert better.p == pytest.approx(2 / 201)


def test_progress_is_reported() -> None:
    steps: list[tuple[int, int]] = []
    tables = coco_tables(*random_scene(0), CLASSES)
    resampled_map(tables, resample_counts(12, 120, 0), lambda done, total: steps.append((done, total)))
    assert steps == [(50, 120), (100, 120), (120, 120)]


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_of_resamples_equals_that_of_each_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    detections = int(rng.integers(0, 30))
    correct = rng.random((10, detections)) < rng.random()
    weight = rng.integers(0, 4, (7, detections))
    most = (correct * weight[:, None]).sum(axis=2).max(axis=1, initial=0)
    boxes = most + rng.integers(0, 3, 7)
    single = [
        average_precision(correct, float(n), w.astype(float)) for n, w in zip(boxes, weight, strict=True)
    ]
    together = average_precision_of_resamples(correct, boxes, weight)
    np.testing.assert_allclose(together, np.array(single), rtol=0, atol=1e-12)


def test_expanded_interval_is_wider_for_few_units() -> None:
    values = np.random.default_rng(0).normal(size=4000)
    few, many, plain = (expanded_interval(values, 6), expanded_interval(values, 5000), interval(values))
    assert few is not None
    assert many is not None
    assert plain is not None
    assert few[0] < many[0] < 0 < many[1] < few[1]
    np.testing.assert_allclose(many, plain, atol=0.01)
    assert expanded_interval(np.full(3, np.nan), 6) is None
