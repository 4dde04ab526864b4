"""The store of trainings, their rows and tests, and many of them in a row."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsmoe_core.errors import DataError
from dsmoe_core.evaluation.coco_metrics import evaluate
from dsmoe_core.evaluation.seed_stats import paired_t_test
from pipelines.benchmarks.comparison import dataset as lessons
from pipelines.benchmarks.comparison import sweep
from pipelines.benchmarks.comparison.digests import of_code
from pipelines.benchmarks.comparison.protocol import Budget, Lesson
from pipelines.benchmarks.comparison.rows import differences, row
from pipelines.benchmarks.comparison.run_store import Bouts
from pipelines.benchmarks.comparison.sweep import Entrant, Field, Pair
from tests.pipelines.benchmarks.comparison.conftest import Guesser, RecordingProgress

SHORT = Budget(epochs=2)


def test_a_bout_is_fought_once_and_judged_as_everywhere(bouts: Bouts, lesson: Lesson) -> None:
    guesser = Guesser("a", 0.5)
    one, two = (bouts.fight(guesser, lesson, SHORT, 1) for _ in range(2))
    assert len(guesser.learned) == 1
    assert one == two
    assert one.kept == two.kept
    scores = evaluate([guesser.predict(p, 1) for p in lesson.val], lesson.val, lesson.vocabulary.names)
    assert one.total["map50"] == pytest.approx(scores.map50)
    assert one.total["map"] == pytest.approx(scores.map)
    assert (one.kept["epochs"], one.kept["minutes"]) == (2.0, 1.5)
    assert one.resampled.shape == (100, 2)


def test_whatever_decides_makes_another_bout(bouts: Bouts, lesson: Lesson, tmp_path: Path) -> None:
    guesser = Guesser("a", 0.5)
    less = replace(lesson, val=(replace(lesson.val[0], annotations=()), *lesson.val[1:]))
    other = tmp_path / "other.png"
    shutil.copy(lesson.train[1].image.path, other)
    image = replace(lesson.train[0].image, path=other)
    seen = replace(lesson, train=(replace(lesson.train[0], image=image), *lesson.train[1:]))
    for asked in (
        (guesser, lesson, SHORT, 1),
        (guesser, lesson, SHORT, 2),
        (guesser, lesson, Budget(epochs=3), 1),
        (guesser, lesson, Budget(minutes=2), 1),
        (replace(guesser, version=2), lesson, SHORT, 1),
        (guesser, less, SHORT, 1),
        (guesser, seen, SHORT, 1),
        (guesser, lessons.with_share(lesson, 0.5, 1), SHORT, 1),
    ):
        bouts.fight(*asked)
    assert len(guesser.learned) == 8
    assert len(list((tmp_path / "work").iterdir())) == 8


@pytest.mark.parametrize(
    ("budget", "trainings"), [(Budget(minutes=2), 3), (SHORT, 2)], ids=["minutes", "passes"]
)
def test_minutes_of_another_machine_are_another_bout(
    bouts: Bouts, lesson: Lesson, budget: Budget, trainings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    guesser, here = Guesser("a", 0.5), {"cpu": "one", "cores": 2, "gpu": None}
    for machine in (here, here | {"cores": 1}, here | {"gpu": "H200"}):
        monkeypatch.setattr("pipelines.benchmarks.comparison.run_store.machine", lambda there=machine: there)
        bouts.fight(guesser, lesson, budget, 1)
    assert len(guesser.learned) == trainings


def test_a_changed_line_of_code_is_another_code(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/a.py", "inner/b.py"):
        (package / name).write_text("x = 1\n")
    hashes = {of_code(package / "__init__.py")}
    for change in (("inner/a.py", "x = 2\n"), ("inner/c.py", "")):
        (package / change[0]).write_text(change[1])
        of_code.cache_clear()
        hashes.add(of_code(package / "__init__.py"))
    (package / "notes.txt").write_text("nothing")
    of_code.cache_clear()
    assert len(hashes) == 3
    assert of_code(package / "__init__.py") in hashes


def test_one_that_was_killed_is_fought_again_in_its_folder(
    bouts: Bouts, lesson: Lesson, tmp_path: Path
) -> None:
    class Killed(Guesser):
        def learn(self, lesson: Lesson, budget: Budget, seed: int, folder: Path, progress: Any) -> Any:
            (folder / "begun").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bouts.fight(Killed("a", 0.5), lesson, SHORT, 1)
    result = bouts.fight(Guesser("a", 0.5), lesson, SHORT, 1)
    assert (result.folder / "begun").exists()
    assert (result.folder / "result.json").exists()


def test_the_same_training_is_asked_again_once(bouts: Bouts, lesson: Lesson) -> None:
    guesser = Guesser("a", 0.9)
    result = bouts.fight(guesser, lesson, SHORT, 1)
    asked: list[Path] = []

    def look(folder: Path) -> list[Any]:
        asked.append(folder)
        return []

    for _ in range(2):
        again = bouts.again(result, "silent", look, lesson)
    assert asked == [result.folder]
    assert again.total["map"] == 0.0 < result.total["map"]
    assert again.seed == 1


def test_rows_hold_a_figure_a_seed_and_tests_are_paired(bouts: Bouts, lesson: Lesson) -> None:
    good, bad = Guesser("good", 0.6), Guesser("bad", 0.2)
    ours = [bouts.fight(good, lesson, SHORT, seed) for seed in (1, 2, 3)]
    theirs = [bouts.fight(bad, lesson, SHORT, seed) for seed in (3, 2, 1)]
    said = row(ours)
    assert said["seeds"] == [1, 2, 3]
    assert said["map"] == [round(one.total["map"], 4) for one in ours]
    assert set(said["classes"]) <= set(lesson.vocabulary.names)
    assert all(len(figures) == 3 for one in said["classes"].values() for figures in one.values())
    assert len(said["errors"]["missed"]) == 3
    seeds, images = differences(ours, theirs)
    expected = paired_t_test([r.total["map"] for r in ours], [r.total["map"] for r in reversed(theirs)])
    assert seeds == {
        "over": "seeds",
        "delta_map": round(expected.delta, 4),
        "ci95": [round(end, 4) for end in expected.ci95],
        "p": round(expected.p, 5),
    }
    assert images["over"] == "pictures"
    assert images["delta_map"] == seeds["delta_map"] > 0
    assert images["ci95"][0] <= images["delta_map"] <= images["ci95"][1]


def test_without_a_seed_in_both_nothing_is_compared(bouts: Bouts, lesson: Lesson) -> None:
    one, other = (bouts.fight(Guesser("a", 0.5), lesson, SHORT, seed) for seed in (1, 2))
    assert differences([one], [other]) == []
    assert [test["over"] for test in differences([one], [one])] == ["pictures"]


def field(*guessers: Guesser) -> Field:
    entrants = [Entrant({"model": one.name}, one) for one in guessers]
    return Field(entrants, [Pair(0, 1, {"model": guessers[0].name, "against": guessers[1].name})])


def test_a_series_goes_seed_by_seed_and_reports_after_each(
    small: Path, bouts: Bouts, progress: RecordingProgress, tmp_path: Path
) -> None:
    second = Path(shutil.copytree(small, tmp_path / "second"))
    one, other = Guesser("one", 0.6), Guesser("other", 0.2)
    reports: list[tuple[dict[str, Any], Sequence[int]]] = []
    sweep.run(field(one, other), [small, second], SHORT, [1, 2], bouts, lambda *said: reports.append(said))
    assert [len(said["rows"]) for said, _ in reports] == [1, 2, 3, 4, 4, 4, 4, 4]
    assert [list(seeds) for _, seeds in reports] == [[1]] * 4 + [[1, 2]] * 4
    assert one.learned == [(name, seed, 10) for seed in (1, 2) for name in ("squares", "second")]
    assert "tests" in reports[0][0]
    assert reports[0][0]["tests"] == []
    last = reports[-1][0]
    assert [(row["data"], row["model"], row["seeds"]) for row in last["rows"]] == [
        (name, model, [1, 2]) for name in ("squares", "second") for model in ("one", "other")
    ]
    assert {(test["data"], test["over"]) for test in last["tests"]} == {
        (name, over) for name in ("squares", "second") for over in ("seeds", "pictures")
    }
    assert any("8 of 8" in line for line in progress.lines)


def test_a_series_that_was_stopped_goes_on(small: Path, bouts: Bouts) -> None:
    one, other = Guesser("one", 0.6), Guesser("other", 0.2)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run(field(one, other), [small], SHORT, [1], bouts, stop)
    sweep.run(field(one, other), [small], SHORT, [1], bouts, lambda *_: None)
    assert len(one.learned) == len(other.learned) == 1


def test_a_share_is_drawn_by_seed_has_a_box_and_is_part_of_a_larger_one(lesson: Lesson) -> None:
    first = next(i for i, one in enumerate(lesson.train) if one.annotations)
    blank = [replace(one, annotations=()) if i != first else one for i, one in enumerate(lesson.train)]
    rare = replace(lesson, train=tuple(blank))
    for seed in range(6):
        small, half, whole = (lessons.with_share(rare, share, seed) for share in (0.01, 0.5, 1.0))
        assert small.train == (rare.train[first],)
        assert len(half.train) == 5
        assert {p.image.name for p in small.train} <= {p.image.name for p in half.train}
        assert whole is rare
        assert half.val == rare.val
    assert lessons.with_share(lesson, 0.3, 1) == lessons.with_share(lesson, 0.3, 1)
    drawn = {tuple(p.image.name for p in lessons.with_share(lesson, 0.3, seed).train) for seed in range(6)}
    assert len(drawn) > 1


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_image_that_cannot_be_read_stops_a_comparison(small: Path, tmp_path: Path, part: str) -> None:
    data = Path(shutil.copytree(small, tmp_path / "data"))
    (data / "images" / f"{part}-000.png").write_bytes(b"no image")
    with (
        pytest.raises(DataError, match=rf"1 images of .*{part}\.json cannot be read"),
        lessons.read(data, RecordingProgress()),
    ):
        pass


def test_a_set_without_a_box_is_refused(small: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(small, tmp_path / "data"))
    known = json.loads((data / "val.json").read_text())
    (data / "val.json").write_text(json.dumps(known | {"annotations": []}))
    with pytest.raises(DataError, match=r"val\.json has no box"), lessons.read(data, RecordingProgress()):
        pass
