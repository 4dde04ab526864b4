"""Evaluators of class books: one contract for the one with a detector and the fake, and the detector's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import SMALL, HashEncoder, train

from dsmoe_core.data import coco
from dsmoe_core.data.external_images import read_external_images
from dsmoe_core.errors import ClassBookError, DataError
from dsmoe_core.schema import Annotation, Box, ImageRecord, LabelledImage
from pipelines.class_text.text_evaluator import ChampionPredictor, TextEvaluator, evaluation_images
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.progress import SilentProgress
from prompts.class_book import ClassBook
from prompts.fake_evaluator import FakeEvaluator
from prompts.glossary import glossary_book
from prompts.refinement import ConfusedPair, Evaluator
from tests.pipelines.class_text.text_following_detector import (
    NEXT_CLASS,
    WITH_KEYWORD,
    WITHOUT_KEYWORD,
    TextFollowingDetector,
)

KEYWORDS = {"rust": "crimson", "brick": "orange", "plum": "violet"}
PAIRS = (ConfusedPair(first="rust", second="brick"), ConfusedPair(first="brick", second="plum"))
MakeEvaluator = Callable[[tuple[ConfusedPair, ...]], Evaluator]


def book(**descriptions: str) -> ClassBook:
    result = glossary_book(list(KEYWORDS))
    for name, text in descriptions.items():
        result = result.with_description(name, text, "person", "Ada")
    return result


def labelled(key: str, *labels: str) -> LabelledImage:
    boxes = tuple(
        Annotation(Box(10.0 + 20 * i, 10.0, 22.0 + 20 * i, 22.0), label) for i, label in enumerate(labels)
    )
    return LabelledImage(ImageRecord(key, key, Path(f"{key}.png"), 96, 96), boxes)


TRUTH = [labelled("a", "rust", "brick"), labelled("b", "rust", "rust", "plum"), labelled("c")]


def predictor_of(detector: TextFollowingDetector) -> ChampionPredictor:
    return ChampionPredictor(detector, Path("model"), TRUTH, SilentProgress().advance)


def evaluator_of(detector: TextFollowingDetector, pairs: tuple[ConfusedPair, ...] = PAIRS) -> TextEvaluator:
    return TextEvaluator(predictor_of(detector), pairs)


@pytest.fixture(params=["detector", "fake"])
def make(request: pytest.FixtureRequest) -> MakeEvaluator:
    if request.param == "fake":
        return lambda pairs: FakeEvaluator({name: [word] for name, word in KEYWORDS.items()}, pairs)
    return lambda pairs: evaluator_of(TextFollowingDetector(TRUTH, KEYWORDS), pairs)


def test_scores_cover_every_class_and_pair(make: MakeEvaluator) -> None:
    scores = make(PAIRS).score(book())
    assert set(scores.class_ap) == set(KEYWORDS)
    assert set(scores.pair_margins) == {"rust / brick", "brick / plum"}
    assert all(0 <= value <= 1 for value in scores.class_ap.values())
    assert all(-1 <= value <= 1 for value in scores.pair_margins.values())


def test_scores_do_not_depend_on_books_scored_before(make: MakeEvaluator) -> None:
    evaluator = make(PAIRS)
    first = evaluator.score(book())
    assert evaluator.score(book(rust="a crimson spot")) != first
    assert evaluator.score(book()) == first == make(PAIRS).score(book())


def test_keyword_improves_only_its_class_and_pair(make: MakeEvaluator) -> None:
    before = make(PAIRS).score(book(brick="an orange spot"))
    after = make(PAIRS).score(book(brick="an orange spot", rust="a crimson spot"))
    assert after.class_ap["rust"] > before.class_ap["rust"]
    assert after.pair_margins["rust / brick"] > before.pair_margins["rust / brick"]
    assert after.pair_margins["brick / plum"] == before.pair_margins["brick / plum"]
    assert after.total > before.total


def test_book_without_an_annotated_class_is_refused(make: MakeEvaluator) -> None:
    with pytest.raises(ClassBookError, match="'plum'"):
        make(PAIRS).score(glossary_book(["rust", "brick"]))


def test_margin_is_the_mean_of_both_classes_mean_margins() -> None:
    evaluator = evaluator_of(TextFollowingDetector(TRUTH, KEYWORDS))
    margins = evaluator.score(book(rust="a crimson spot")).pair_margins
    rust, brick = WITH_KEYWORD - 0.1, WITHOUT_KEYWORD - 0.05  # three boxes of rust, one of brick
    assert margins["rust / brick"] == pytest.approx((rust + brick) / 2)
    brick, plum = WITHOUT_KEYWORD - NEXT_CLASS, WITHOUT_KEYWORD - 0.05
    assert margins["brick / plum"] == pytest.approx((brick + plum) / 2)


def test_scores_without_detections_are_zero() -> None:
    empty = [LabelledImage(item.image, ()) for item in TRUTH]
    scores = evaluator_of(TextFollowingDetector(empty, KEYWORDS)).score(book())
    assert set(scores.pair_margins.values()) == {0.0}
    assert set(scores.class_ap.values()) == {0.0}


def test_pair_without_a_labelled_box_is_refused() -> None:
    pair = ConfusedPair(first="dent", second="rust")
    with pytest.raises(DataError, match=r"'dent'.* brick"):
        evaluator_of(TextFollowingDetector(TRUTH, KEYWORDS), (pair,))


def test_predictions_of_the_last_book_are_cached() -> None:
    detector = TextFollowingDetector(TRUTH, KEYWORDS)
    predictor = predictor_of(detector)
    predictor.predict(book())
    TextEvaluator(predictor, PAIRS).score(book())
    assert detector.books == [book().version]


def test_evaluation_images_cover_every_class_and_prefer_images_outside_the_training_set() -> None:
    frequent = [labelled(f"{i:02d}", "rust") for i in range(20)]
    rare = [labelled("x", "plum"), labelled("y", "brick"), labelled("z")]
    trained_on = {f"{i:02d}" for i in range(15)} | {"x"}
    images = evaluation_images([*frequent, *rare], trained_on, 6)
    assert {item.image.key for item in images} == {"x", "y", "z", "15", "16", "17"}
    assert evaluation_images([*rare, *frequent], trained_on, 6) == images


@given(st.lists(st.sets(st.sampled_from(list(KEYWORDS))), max_size=12), st.integers(1, 15))
def test_evaluation_images_are_unique_and_as_many_as_allowed(rows: list[set[str]], max_images: int) -> None:
    images = [labelled(f"{i:02d}", *sorted(labels)) for i, labels in enumerate(rows)]
    keys = [item.image.key for item in evaluation_images(images, set(), max_images)]
    assert len(keys) == len(set(keys)) == min(max_images, len(rows))


@pytest.mark.slow
def test_predictions_of_a_network_depend_on_the_descriptions(blocks: Path, tmp_path: Path) -> None:
    """Six training steps suffice: the text embeddings are inputs of the network."""
    document = coco.read(blocks / "train.json")
    truth = read_external_images(document, blocks / "images", tmp_path, max_pixels=10**6).labelled[:4]
    train(tmp_path / "model", list(truth), book().vocabulary())
    detector = DSMoEBackend(SMALL, tmp_path / "cache")
    detector.__dict__["text_encoder"] = HashEncoder()
    predictor = ChampionPredictor(detector, tmp_path / "model", truth, SilentProgress().advance)
    first, other = predictor.predict(book()), predictor.predict(book(rust="a crimson spot"))
    assert {p.version for p in first.values()} == {f"model+{book().version}"}
    assert [p.detections for p in first.values()] != [p.detections for p in other.values()]
    scores = TextEvaluator(predictor, PAIRS).score(book())
    assert scores == TextEvaluator(predictor, PAIRS).score(book())
    assert set(scores.pair_margins) == {pair.title for pair in PAIRS}
