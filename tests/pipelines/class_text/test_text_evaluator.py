"""Evaluators: one contract for the one that asks a detector and for the fake; and what the real one reads."""

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
from pipelines.detectors.backend import DSMoEBackend
from prompts.class_book import ClassBook
from prompts.fake_evaluator import FakeEvaluator
from prompts.glossary import glossary_book
from prompts.refinement import ConfusedPair, Evaluator
from tests.pipelines.wordy import BLIND, RIGHT, TAKEN, TextFollowingDetector

TELLING = {"rust": "crimson", "brick": "orange", "plum": "violet"}
PAIRS = (ConfusedPair(first="rust", second="brick"), ConfusedPair(first="brick", second="plum"))
MakeEvaluator = Callable[[tuple[ConfusedPair, ...]], Evaluator]


def book(**texts: str) -> ClassBook:
    start = glossary_book(list(TELLING))
    for name, text in texts.items():
        start = start.with_description(name, text, "person", "Ada")
    return start


def labelled(key: str, *labels: str) -> LabelledImage:
    boxes = tuple(
        Annotation(Box(10.0 + 20 * i, 10.0, 22.0 + 20 * i, 22.0), label) for i, label in enumerate(labels)
    )
    return LabelledImage(ImageRecord(key, key, Path(f"{key}.png"), 96, 96), boxes)


TRUTH = [labelled("a", "rust", "brick"), labelled("b", "rust", "rust", "plum"), labelled("c")]


def silent(_done: int, _total: int) -> None:
    """Nobody is told."""


def read_by(detector: TextFollowingDetector, pairs: tuple[ConfusedPair, ...] = PAIRS) -> TextEvaluator:
    return TextEvaluator(ChampionPredictor(detector, Path("model"), TRUTH, silent), pairs)


@pytest.fixture(params=["real", "fake"])
def make(request: pytest.FixtureRequest) -> MakeEvaluator:
    if request.param == "fake":
        return lambda pairs: FakeEvaluator({n: [word] for n, word in TELLING.items()}, pairs)
    return lambda pairs: read_by(TextFollowingDetector(TRUTH, TELLING), pairs)


def test_there_is_a_figure_for_every_class_and_pair(make: MakeEvaluator) -> None:
    scores = make(PAIRS).score(book())
    assert set(scores.class_ap) == set(TELLING)
    assert set(scores.pair_margins) == {"rust / brick", "brick / plum"}
    assert all(0 <= figure <= 1 for figure in scores.class_ap.values())
    assert all(-1 <= figure <= 1 for figure in scores.pair_margins.values())


def test_the_same_book_has_the_same_scores_whatever_came_between(make: MakeEvaluator) -> None:
    evaluator = make(PAIRS)
    first = evaluator.score(book())
    assert evaluator.score(book(rust="a crimson spot")) != first
    assert evaluator.score(book()) == first == make(PAIRS).score(book())


def test_the_right_word_is_better_for_its_class_and_its_pair_alone(make: MakeEvaluator) -> None:
    before = make(PAIRS).score(book(brick="an orange spot"))
    after = make(PAIRS).score(book(brick="an orange spot", rust="a crimson spot"))
    assert after.class_ap["rust"] > before.class_ap["rust"]
    assert after.pair_margins["rust / brick"] > before.pair_margins["rust / brick"]
    assert after.pair_margins["brick / plum"] == before.pair_margins["brick / plum"]
    assert after.total > before.total


def test_a_book_without_a_judged_class_is_refused(make: MakeEvaluator) -> None:
    with pytest.raises(ClassBookError, match="class 'plum' is not in the class book"):
        make(PAIRS).score(glossary_book(["rust", "brick"]))


def test_a_margin_is_the_mean_over_both_classes_of_the_surest_detection_on_each_box() -> None:
    scores = read_by(TextFollowingDetector(TRUTH, TELLING)).score(book(rust="a crimson spot"))
    rust, brick = RIGHT - 0.1, BLIND - 0.05  # three boxes of rust weigh as much as one of brick
    assert scores.pair_margins["rust / brick"] == pytest.approx((rust + brick) / 2)
    assert scores.pair_margins["brick / plum"] == pytest.approx(((BLIND - TAKEN) + (BLIND - 0.05)) / 2)


def test_nothing_found_on_a_box_is_no_margin() -> None:
    empty = [LabelledImage(p.image, ()) for p in TRUTH]
    scores = read_by(TextFollowingDetector(empty, TELLING)).score(book())
    assert set(scores.pair_margins.values()) == {0.0}
    assert set(scores.class_ap.values()) == {0.0}


def test_a_pair_without_a_labelled_box_is_refused() -> None:
    with pytest.raises(DataError, match="no labelled image has a box of 'dent'; there are boxes of brick"):
        read_by(TextFollowingDetector(TRUTH, TELLING), (ConfusedPair(first="dent", second="rust"),))


def test_a_book_that_was_read_last_is_not_read_again() -> None:
    detector = TextFollowingDetector(TRUTH, TELLING)
    reader = ChampionPredictor(detector, Path("model"), TRUTH, silent)
    reader.predict(book())
    TextEvaluator(reader, PAIRS).score(book())
    assert detector.books == [book().version]


def test_the_part_has_every_class_and_what_is_new_to_the_model_first() -> None:
    many = [labelled(f"{i:02d}", "rust") for i in range(20)]
    rare = [labelled("x", "plum"), labelled("y", "brick"), labelled("z")]
    part = evaluation_images([*many, *rare], {f"{i:02d}" for i in range(15)} | {"x"}, 6)
    assert {p.image.key for p in part} == {"x", "y", "z", "15", "16", "17"}
    assert evaluation_images([*rare, *many], {f"{i:02d}" for i in range(15)} | {"x"}, 6) == part


@given(st.lists(st.sets(st.sampled_from(list(TELLING))), max_size=12), st.integers(1, 15))
def test_the_part_is_as_large_as_it_can_be_and_has_no_image_twice(rows: list[set[str]], most: int) -> None:
    images = [labelled(f"{i:02d}", *sorted(labels)) for i, labels in enumerate(rows)]
    keys = [p.image.key for p in evaluation_images(images, set(), most)]
    assert len(keys) == len(set(keys)) == min(most, len(rows))


@pytest.mark.slow
def test_a_network_s_figures_hang_on_the_words(blocks: Path, tmp_path: Path) -> None:
    """Six steps of training teach nothing; that other words are other figures is in the architecture."""
    known = coco.read(blocks / "train.json")
    truth = read_external_images(known, blocks / "images", tmp_path, max_pixels=10**6).labelled[:4]
    train(tmp_path / "model", list(truth), book().vocabulary())
    detector = DSMoEBackend(SMALL, tmp_path / "cache")
    detector.__dict__["text_encoder"] = HashEncoder()
    reader = ChampionPredictor(detector, tmp_path / "model", truth, silent)
    first, other = reader.predict(book()), reader.predict(book(rust="a crimson spot"))
    assert {f.version for f in first.values()} == {f"model+{book().version}"}
    assert [f.detections for f in first.values()] != [f.detections for f in other.values()]
    scores = TextEvaluator(reader, PAIRS).score(book())
    assert scores == TextEvaluator(reader, PAIRS).score(book())
    assert set(scores.pair_margins) == {p.title for p in PAIRS}
