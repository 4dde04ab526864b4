"""DS-MoE as a contestant, in other words too, and who enters which benchmark."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from tiny import SMALL, HashEncoder

from dsmoe_core.config import Tiles, TrainingConfig
from dsmoe_core.errors import SettingsError
from dsmoe_core.schema import ClassText, LabelledSet, Vocabulary
from dsmoe_core.tiling import labelled_views
from pipelines.benchmarks.comparison import dsmoe_model, text_ablation, variants
from pipelines.benchmarks.comparison.digests import of_lesson
from pipelines.benchmarks.comparison.dsmoe_model import DsmoeContestant
from pipelines.benchmarks.comparison.protocol import Budget, Lesson
from pipelines.benchmarks.comparison.run_store import Bouts
from prompts.text_controls import TEXT_CONTROLS
from tests.pipelines.benchmarks.comparison.conftest import RecordingProgress

QUICK = TrainingConfig(batch=5, checkpoint_every_s=1e-9, precision="32-true")


def tiny(words: Vocabulary | None = None, **settings: Any) -> DsmoeContestant:
    return DsmoeContestant("tiny", SMALL, HashEncoder(), training=QUICK, words=words, **settings)


class Stop(RecordingProgress):
    """Interrupts after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def advance(self, done: int, total: int, note: str = "") -> None:
        super().advance(done, total)
        if len(self.done) == self._steps:
            raise KeyboardInterrupt


def test_it_trains_for_epochs_and_finds_in_order(
    lesson: Lesson, progress: RecordingProgress, tmp_path: Path
) -> None:
    learned = tiny().learn(lesson, Budget(epochs=2), 1, tmp_path, progress)
    assert learned.epochs == 2
    assert [one.key for one in learned.detections] == [one.image.key for one in lesson.val]
    assert (4, 4) in progress.done


def test_a_pass_goes_through_all_tiles(lesson: Lesson, progress: RecordingProgress, tmp_path: Path) -> None:
    """Images of 96 px in tiles of 64: four each, those with a box, and the whole."""
    model = SMALL.model_copy(update={"tiles": Tiles(px=64, empty=0)})
    shown = sum(len(labelled_views(p, Tiles(px=64, empty=0))) for p in lesson.train)
    assert 20 <= shown <= 50
    contestant = DsmoeContestant("tiles", model, HashEncoder(), training=QUICK)
    learned = contestant.learn(lesson, Budget(epochs=2), 1, tmp_path, progress)
    steps = ceil(2 * shown / 5)
    assert (steps, steps) in progress.done
    assert learned.epochs == steps * 5 / shown
    assert [one.key for one in learned.detections] == [one.image.key for one in lesson.val]


def test_killed_it_goes_on_from_its_checkpoint_and_ends_the_same(
    lesson: Lesson, progress: RecordingProgress, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        tiny().learn(lesson, Budget(epochs=2), 1, tmp_path / "killed", Stop(3))
    learned = tiny().learn(lesson, Budget(epochs=2), 1, tmp_path / "killed", progress)
    assert progress.done[0][0] == 3  # the last checkpoint was after step 2
    whole = tiny().learn(lesson, Budget(epochs=2), 1, tmp_path / "whole", RecordingProgress())
    assert [one.detections for one in learned.detections] == [one.detections for one in whole.detections]


def test_minutes_become_a_length_that_is_measured_once(
    lesson: Lesson, progress: RecordingProgress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contestant = tiny()
    monkeypatch.setattr(contestant, "_speed", lambda *_: 1.25)
    with pytest.raises(KeyboardInterrupt):
        contestant.learn(lesson, Budget(minutes=0.2), 1, tmp_path, Stop(2))
    monkeypatch.setattr(contestant, "_speed", lambda *_: pytest.fail("measured again"))
    learned = contestant.learn(lesson, Budget(minutes=0.2), 1, tmp_path, progress)
    assert progress.done[0][1] == 3  # 15 images, five a step
    assert learned.epochs == 1.5, "of ten images"


def test_its_speed_is_that_of_the_steps_after_the_first(
    lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which the first steps take ten seconds each and the others half a second."""
    steps = 0

    def fit(*, progress: Any, out: Path, **_: Any) -> None:
        nonlocal steps
        while True:
            steps += 1
            progress(steps, 10**6, {})

    monkeypatch.setattr(dsmoe_model, "fit", fit)
    monkeypatch.setattr(dsmoe_model, "SPEED_S", 3.0)
    monkeypatch.setattr(dsmoe_model.time, "monotonic", lambda: 10.0 * min(steps, 4) + 0.5 * max(0, steps - 4))
    assert tiny()._speed(lesson, QUICK) == pytest.approx(5 / 0.5)
    assert steps == 4 + 6


def test_its_identity_is_all_that_decides(lesson: Lesson, tmp_path: Path) -> None:
    weights = tmp_path / "encoder.safetensors"
    weights.write_bytes(b"weights")
    other = Vocabulary((ClassText("rust", "red"),))
    contestants = [tiny(), tiny(other), tiny(encoder_from=weights)]
    contestants.append(DsmoeContestant("tiny", SMALL, HashEncoder()))
    contestants.append(DsmoeContestant("t", SMALL.with_tiny_head(True), HashEncoder(), training=QUICK))
    said = [str(one.identity(lesson)) for one in contestants]
    assert len(set(said)) == 5
    assert str(tiny().identity(lesson)) == said[0]
    weights.write_bytes(b"others")
    assert str(contestants[2].identity(lesson)) != said[2]


def test_other_sets_are_learned_along_and_make_another_training(
    lesson: Lesson, progress: RecordingProgress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    fit = dsmoe_model.fit
    monkeypatch.setattr(dsmoe_model, "fit", lambda **settings: given.update(settings) or fit(**settings))
    other = replace(lesson, name="more", train=lesson.train[:5])
    along = replace(lesson, along=(other,))
    learned = tiny().learn(along, Budget(epochs=2), 1, tmp_path, progress)
    assert given["also"] == [LabelledSet(other.train, other.vocabulary)]
    assert learned.epochs == 2, "of ten images and five"
    reworded = replace(other, vocabulary=Vocabulary(other.vocabulary.classes[::-1]))
    told_apart = [lesson, along, replace(lesson, along=(reworded,)), replace(lesson, along=(other, other))]
    assert len({of_lesson(one) for one in told_apart}) == 4


def test_first_weights_and_other_words_reach_the_training(
    lesson: Lesson, progress: RecordingProgress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def fit(**settings: Any) -> None:
        given.update(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(dsmoe_model, "fit", fit)
    other = Vocabulary((ClassText("rust", "red"),))
    contestant = tiny(other, encoder_from=tmp_path / "encoder.safetensors")
    with pytest.raises(KeyboardInterrupt):
        contestant.learn(lesson, Budget(epochs=3), 7, tmp_path, progress)
    assert given["encoder_from"] == tmp_path / "encoder.safetensors"
    assert given["vocabulary"] is other
    assert given["training"].seed == 7
    assert given["training"].images_seen == 30
    assert given["model"].text_width == HashEncoder.width


def test_one_model_is_asked_in_all_words_and_others_are_trained_where_wanted(
    small: Path, bouts: Bouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    fit = dsmoe_model.fit
    monkeypatch.setattr(dsmoe_model, "fit", lambda **given: trained.append(1) or fit(**given))
    reports: list[dict[str, Any]] = []

    def go(anew: bool) -> dict[str, Any]:
        text_ablation.run(
            tiny, [small], Budget(epochs=1), [1], bouts, lambda said, _: reports.append(said), anew=anew
        )
        return reports[-1]

    once = go(False)
    assert len(trained) == 1
    assert [(r["words"], r["trained"]) for r in once["rows"]] == [(w, "once") for w in TEXT_CONTROLS]
    assert {t["against"] for t in once["tests"]} == set(TEXT_CONTROLS) - {"right"}
    random = next(t for t in once["tests"] if t["against"] == "random")
    assert once["right_minus_random"] == {"squares": {"delta": random["delta_map"], "ci95": random["ci95"]}}
    assert go(False) == once
    assert len(trained) == 1
    anew = go(True)
    assert len(trained) == 4
    assert [r["words"] for r in anew["rows"] if r["trained"] == "anew"] == ["name", "random", "swapped"]
    assert [r for r in anew["rows"] if r["trained"] == "once"] == once["rows"]


def interpreter(_: Any) -> Path:
    return Path("python")


def test_ours_and_theirs_enter_and_are_compared() -> None:
    field = variants.detectors(["nano", "yolov8n", "yolov8s"], 320, HashEncoder(), interpreter)
    assert [one.keys["model"] for one in field.entrants] == ["nano", "yolov8n", "yolov8s"]
    assert [(p.one, p.other) for p in field.pairs] == [(0, 1), (0, 2)]
    assert {one.contestant.image_px for one in field.entrants} == {320}


@pytest.mark.parametrize(
    ("names", "said"),
    [(["nano", "yolo"], "'yolo' is no model; there are nano, base, yolov8n"), (["nano"] * 2, "twice")],
)
def test_an_unknown_or_repeated_model_is_refused(names: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        variants.detectors(names, 320, HashEncoder(), interpreter)


def test_a_side_that_fits_no_network_is_refused() -> None:
    with pytest.raises(SettingsError, match="image_px"):
        variants.ours("nano", 100, HashEncoder())


def test_the_ablation_s_rows_have_the_tiny_head_but_one() -> None:
    field = variants.ablation(list(variants.ROWS), "nano", 320, HashEncoder())
    shapes = [one.contestant.model for one in field.entrants if isinstance(one.contestant, DsmoeContestant)]
    assert [(s.ablation, 4 in s.head_strides) for s in shapes] == [
        *((row, True) for row in "ABCDEF"),
        ("F", False),
    ]
    assert [pair.keys for pair in field.pairs] == [
        {"row": "F", "against": row} for row in (*"ABCDE", "no-tiny-head")
    ]
    assert variants.ablation(["A", "B"], "nano", 320, HashEncoder()).pairs == []


def test_the_ablation_s_whole_nano_is_the_nano_of_the_other_benchmarks(lesson: Lesson) -> None:
    (row,) = variants.ablation(["F"], "nano", 320, HashEncoder()).entrants
    assert row.contestant.identity(lesson) == variants.ours("nano", 320, HashEncoder()).identity(lesson)


def test_starts_are_compared_at_each_share(tmp_path: Path) -> None:
    warm = tmp_path / "warm.safetensors"
    warm.touch()
    field = variants.starts(["scratch", "warm"], [0.05, 1.0], "nano", 320, HashEncoder(), warm)
    assert [(one.labels, one.keys["start"]) for one in field.entrants] == [
        (0.05, "scratch"),
        (0.05, "warm"),
        (1.0, "scratch"),
        (1.0, "warm"),
    ]
    assert [(p.one, p.other) for p in field.pairs] == [(1, 0), (3, 2)]
    alone = variants.starts(["scratch"], [1.0], "nano", 320, HashEncoder(), None)
    assert alone.pairs == []


@pytest.mark.parametrize(
    ("starts", "shares", "warm", "said"),
    [
        (["cold"], [1.0], None, "'cold' is no start"),
        (["scratch"], [0.0], None, "0.0 is no share"),
        (["warm"], [1.0], None, "no file for the warm start"),
        (["warm"], [1.0], Path("nowhere"), "no file for the warm start at nowhere"),
    ],
)
def test_a_wrong_start_or_share_is_refused(
    starts: list[str], shares: list[float], warm: Path | None, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        variants.starts(starts, shares, "nano", 320, HashEncoder(), warm)
