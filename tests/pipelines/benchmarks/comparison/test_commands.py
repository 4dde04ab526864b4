"""The commands that train, with the fake YOLO, and what becomes of their files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import SMALL, HashEncoder

from dsmoe_core.config import TrainingConfig
from pipelines import cli
from pipelines.benchmarks.comparison import dsmoe_model, run_store, variants
from pipelines.benchmarks.comparison.yolo import yolo_model as yolo
from pipelines.benchmarks.results import read_result, write_into, write_result
from pipelines.benchmarks.tables import render
from pipelines.cli import comparison
from tests.pipelines.blocks import write_blocks

Out = pytest.CaptureFixture[str]


@pytest.fixture
def run(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a benchmark on the small set: a tiny network in the place of the presets, a fake in YOLO's."""
    program = tmp_path / "python"
    fake = Path(__file__).with_name("fake_yolo.py")
    program.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} {fake} "$@"\n')
    program.chmod(0o755)
    quick = TrainingConfig(batch=5, precision="32-true")
    monkeypatch.setattr(yolo, "built", lambda _: lambda on_status: program)
    monkeypatch.setattr(yolo, "LOOK_S", 0.05)
    monkeypatch.setattr(dsmoe_model, "SPEED_S", 0.05)
    monkeypatch.setattr(variants, "_shape", lambda preset, px: SMALL.with_tiny_head(True))
    monkeypatch.setattr(dsmoe_model, "TrainingConfig", lambda: quick)
    monkeypatch.setattr(variants, "TrainingConfig", lambda **given: quick.model_copy(update=given))
    monkeypatch.setattr(comparison, "_texts", HashEncoder)
    monkeypatch.setattr(run_store, "RESAMPLES", 50)

    def go(*words: str) -> int:
        given = ["--data", str(small), "--work", str(tmp_path / "work"), "--json", str(tmp_path / "out.json")]
        return cli.run(["benchmark", words[0], *given, *words[1:]])

    return go


def test_accuracy_is_measured_written_and_not_measured_again(run: Any, tmp_path: Path, capsys: Out) -> None:
    asked = ("accuracy", "--models", "nano,yolov8n", "--epochs", "2", "--px", "64", "--seeds", "2")
    assert run(*asked) == 0
    said = capsys.readouterr().out
    assert "4 of 4: squares, yolov8n, 64, scratch, 1.0, seed 2" in said
    found = read_result(tmp_path / "out.json")
    assert found["seeds"] == [1, 2]
    assert found["budget"] == {"epochs": 2}
    rows = {row["model"]: row for row in found["rows"]}
    assert rows["yolov8n"]["map50"][0] > 0
    assert rows["nano"]["epochs"] == rows["yolov8n"]["epochs"] == 2.0
    assert all(len(row[key]) == 2 for row in found["rows"] for key in ("map50", "map", "f1", "recall"))
    assert {test["over"] for test in found["tests"]} == {"seeds", "pictures"}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.safetensors")}
    assert len(before) == 2
    assert run(*asked) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert read_result(tmp_path / "out.json") == found


def test_accuracy_of_few_labels(run: Any, tmp_path: Path) -> None:
    asked = ("accuracy", "--models", "nano", "--labels", "0.5", "--epochs", "1", "--px", "64", "--seeds", "1")
    assert run(*asked) == 0
    (few,) = read_result(tmp_path / "out.json")["rows"]
    assert few["labels"] == 0.5
    (bout,) = (tmp_path / "work").iterdir()
    assert json.loads((bout / "result.json").read_text())["notes"]["steps"] == 1, (
        "half of the images fit into a step"
    )


def test_a_curve_has_a_training_for_each_budget(run: Any, tmp_path: Path, capsys: Out) -> None:
    asked = ("curve", "--models", "nano,yolov8n", "--px", "64", "--seeds", "1")
    assert run(*asked, "--minutes", "0.02,0.01") == 0
    found = read_result(tmp_path / "out.json")
    assert [(row["after"], row["model"]) for row in found["rows"]] == [
        (0.02, "nano"),
        (0.02, "yolov8n"),
        (0.01, "nano"),
        (0.01, "yolov8n"),
    ]
    assert [(test["after"], test["against"]) for test in found["tests"]] == [
        (0.02, "yolov8n"),
        (0.01, "yolov8n"),
    ]
    write_result(tmp_path / "curve.json", found, command="dsmoe benchmark curve", seeds=[1])
    table = render("<!-- results:curve -->\n<!-- /results:curve -->", tmp_path)
    assert "| data | labels | model | 0.01 min | 0.02 min |" in table
    first = found["rows"][0]
    assert f"{first['map50'][0]:.3f} / {first['map'][0]:.3f} |" in table
    for wrong in ("", "0", "1,1", "soon"):
        assert run(*asked, "--minutes", wrong) == 2


def test_ablation_shares_the_store(run: Any, tmp_path: Path) -> None:
    assert run("ablation", "--rows", "E,F,no-tiny-head", "--epochs", "1", "--px", "64", "--seeds", "1") == 0
    found = read_result(tmp_path / "out.json")
    assert [row["row"] for row in found["rows"]] == ["E", "F", "no-tiny-head"]
    assert [test["against"] for test in found["tests"]] == ["E", "no-tiny-head"]
    assert len(list((tmp_path / "work").iterdir())) == 3


def test_warmstart_takes_shares(run: Any, tmp_path: Path) -> None:
    asked = ("warmstart", "--shares", "0.5,1.0", "--epochs", "1", "--px", "64", "--seeds", "1")
    assert run(*asked, "--start", "scratch") == 0
    assert [row["labels"] for row in read_result(tmp_path / "out.json")["rows"]] == [0.5, 1.0]


def test_settings_are_tried_one_training_each(run: Any, tmp_path: Path) -> None:
    tries = ("--try", "training.text_rate=1", "--try", "training.losses.box=0.05 model.experts=4")
    assert run("settings", *tries, "--labels", "0.5", "--epochs", "1", "--px", "64", "--seeds", "1") == 0
    found = read_result(tmp_path / "out.json")
    assert [row["settings"] for row in found["rows"]] == ["as it is", *tries[1::2]]
    assert [(test["settings"], test["against"]) for test in found["tests"]] == [
        (text, "as it is") for text in tries[1::2]
    ]
    assert len(list((tmp_path / "work").iterdir())) == 3
    for seeds in ([1], [1, 2]):
        for row in found["rows"]:
            row["seeds"] = seeds
        write_result(tmp_path / "settings.json", found, command="dsmoe benchmark settings", seeds=seeds)
        table = render("<!-- results:settings -->\n<!-- /results:settings -->", tmp_path)
        assert ("What another seed would do is not in it." in table) == (seeds == [1])


def test_words_keep_what_others_wrote_into_the_file(run: Any, tmp_path: Path) -> None:
    write_result(tmp_path / "out.json", {"structured_ok": 3, "rows": []}, command="dsmoe other", seeds=[7])
    assert run("words", "--epochs", "1", "--px", "64", "--seeds", "1") == 0
    found = read_result(tmp_path / "out.json")
    assert [row["words"] for row in found["rows"]] == ["right", "name", "random", "swapped"]
    assert found["structured_ok"] == 3
    assert found["origins"]["structured_ok"]["command"] == "dsmoe other"
    assert set(found["right_minus_random"]) == {"squares"}


def test_a_held_out_class_goes_beside_what_others_wrote(run: Any, tmp_path: Path, capsys: Out) -> None:
    write_result(tmp_path / "out.json", {"structured_ok": 3, "rows": []}, command="dsmoe other", seeds=[7])
    assert run("held-out", "--class", "plum", "--epochs", "1", "--px", "64", "--seeds", "1") == 0
    found = read_result(tmp_path / "out.json")
    assert found["structured_ok"] == 3
    for row in found["held_out_class"]:
        assert (row["data"], row["class"], row["budget"]) == ("squares", "plum", {"epochs": 1})
        assert len(row["right"]) == len(row["random"]) == 1
    assert "squares without plum, seed 1" in capsys.readouterr().out


def test_words_learned_with_another_set_and_in_parts(run: Any, tmp_path: Path, capsys: Out) -> None:
    other = write_blocks(tmp_path / "others", train=5, val=2, px=96)
    asked = ("words", "--epochs", "1", "--px", "64", "--seeds", "1", "--class-subsets", "0.5")
    assert run(*asked, "--with", str(other)) == 0
    rows = read_result(tmp_path / "out.json")["rows"]
    assert {(row["data"], *row["with"], row["class_subsets"]) for row in rows} == {("squares", "others", 0.5)}
    (bout,) = (tmp_path / "work").iterdir()
    kept = json.loads((bout / "result.json").read_text())
    assert (kept["notes"]["steps"], kept["epochs"]) == (3, 1.0), "ten images and five, five a step"
    capsys.readouterr()
    assert run(*asked, "--with", str(tmp_path / "nowhere")) == 2
    assert "nowhere/train.json cannot be read" in " ".join(capsys.readouterr().err.split())
    assert run(*asked, "--with", str(other), "--data", str(other)) == 2
    assert "is given as --data and as --with" in " ".join(capsys.readouterr().err.split())


def test_what_is_kept_keeps_its_first_origin(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    write_into(path, {"a": 1}, command="first", seeds=[1])
    write_into(path, {"b": 2}, command="second", seeds=[2])
    write_into(path, {"b": 3, "c": 4}, command="third", seeds=[3])
    found = read_result(path)
    assert (found["a"], found["b"], found["c"]) == (1, 3, 4)
    assert (found["command"], found["seeds"]) == ("third", [3])
    assert {key: origin["command"] for key, origin in found["origins"].items()} == {"a": "first"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["accuracy"], "a budget is --minutes or --epochs"),
        (["accuracy", "--minutes", "1", "--epochs", "1"], "a budget is --minutes or --epochs"),
        (["accuracy", "--epochs", "1", "--models", "detr"], "'detr' is no model"),
        (["accuracy", "--epochs", "1", "--labels", "0"], "0.0 is no share"),
        (["ablation", "--epochs", "1", "--rows", "G"], "'G' is no row"),
        (["settings", "--epochs", "1", "--try", "training.speed=2"], "training.speed is not known"),
        (["settings", "--epochs", "1", "--try", "training.text_rate=fast"], "training.text_rate: "),
        (["settings", "--epochs", "1", "--try", "training.text_rate"], "is not of the form NAME=VALUE"),
        (["settings", "--epochs", "1", "--try", "training.seed=2"], "is decided by budget and seeds"),
        (["settings", "--epochs", "1", *["--try", "training.mixup=1"] * 2], "a setting comes twice"),
        (["warmstart", "--epochs", "1", "--shares", "much"], "is no list of numbers"),
        (["warmstart", "--epochs", "1", "--warm", "gone.safetensors"], "no file for the warm start at gone"),
        (["held-out", "--epochs", "1", "--class", "dent"], "squares lacks boxes of 'dent' in a part"),
    ],
)
def test_a_mistake_is_one_line(run: Any, words: list[str], said: str, capsys: Out) -> None:
    assert run(*words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "keys", "shown"),
    [
        (
            "accuracy",
            {"model": "nano", "image_px": 320, "start": "scratch", "labels": 0.16},
            "| deeppcb | nano | 320 | scratch | 0.16 |",
        ),
        ("ablation", {"row": "F", "size": "nano", "image_px": 320}, "| deeppcb | F | nano | 320 |"),
        ("warmstart", {"labels": 0.05, "start": "warm", "model": "nano"}, "| deeppcb | 0.05 | warm | nano |"),
        (
            "settings",
            {"settings": "training.mixup=1", "size": "nano", "image_px": 320, "labels": 0.16},
            "| deeppcb | training.mixup=1 | nano | 320 | 0.16 |",
        ),
        ("words", {"words": "random", "trained": "once"}, "| deeppcb | random | once |"),
    ],
)
def test_tables_show_rows_and_tests(tmp_path: Path, name: str, keys: dict[str, Any], shown: str) -> None:
    figures = {"map50": [0.7, 0.8], "map": [0.4, 0.5], "precision": [0.4, 0.5], "recall": [0.4, 0.5]}
    test = {**keys, "data": "deeppcb", "against": "x", "over": "seeds", "delta_map": 0.05}
    measured = {
        "budget": {"minutes": 8.0},
        "rows": [{"data": "deeppcb", **keys, "seeds": [1, 2], **figures}],
        "tests": [test | {"ci95": [-0.01, 0.11], "p": 0.07}],
    }
    mark = f"<!-- results:{name} -->\n<!-- /results:{name} -->\n"
    write_result(tmp_path / f"{name}.json", measured, command="dsmoe", seeds=[1, 2])
    text = render(mark, tmp_path)
    assert "Trained for 8 minutes each, 2 seeds, mean [95 % interval over seeds]" in text
    assert f"{shown} - | - | 0.750 [0.115, 1.000] |" in text
    assert "| x | +0.050 [-0.010, +0.110] | 0.07 | seeds |" in text
    one = json.loads((tmp_path / f"{name}.json").read_text())
    one["rows"][0] |= {"seeds": [1], "map50": [0.7], "epochs": 12.25, "minutes": 8.1}
    (tmp_path / f"{name}.json").write_text(json.dumps(one | {"tests": []}))
    assert f"{shown} 12.2 | 8.1 | 0.700 |" in render(mark, tmp_path)
    errors = mark.replace(name, f"{name}_errors")
    assert "Nothing was trained yet." in render(errors, tmp_path), "no kinds of error are known"
    one["rows"][0]["errors"] = {"class": [0.1, 0.2], "missed": [0.01, 0.02]}
    (tmp_path / f"{name}.json").write_text(json.dumps(one))
    assert "| data | what | class | missed |" in render(errors, tmp_path)
    assert " | 0.150 | 0.015 |" in render(errors, tmp_path)
    (tmp_path / f"{name}.json").write_text(json.dumps(one | {"rows": []}))
    assert "Nothing was trained yet." in render(mark, tmp_path)


def test_the_table_of_words_has_the_class_that_was_held_out_and_the_valid_answers(tmp_path: Path) -> None:
    test = {"against": "random", "over": "pictures", "delta_map": 0.12, "ci95": [0.1, 0.14], "p": 0.002}
    held = {"data": "deeppcb", "class": "spur", "asked": "alone", "budget": {"epochs": 8}, "seeds": [1]}
    held |= {"right": [0.2], "name": [0.1], "random": [0.08], "tests": [test]}
    measured = {"held_out_class": [held], "structured_ok": 49, "structured_n": 50, "structured_model": "tiny"}
    write_result(tmp_path / "words.json", measured, command="dsmoe", seeds=[1])
    mark = "<!-- results:words -->\n<!-- /results:words -->\n"
    text = render(mark, tmp_path)
    assert "trained for 8 epochs" in text
    assert "| deeppcb | spur | alone | 0.200 | 0.100 | 0.080 | +0.120 [+0.100, +0.140], 0.002 |" in text
    assert "`tiny` to a JSON schema: 49 of 50." in text
    over_seeds = test | {"over": "seeds", "delta_map": 0.3}
    held["tests"] = [over_seeds, test]
    write_result(tmp_path / "words.json", measured, command="dsmoe", seeds=[1])
    assert "| +0.300 [+0.100, +0.140], 0.002 |" in render(mark, tmp_path)


def test_a_table_names_every_command_that_its_figures_come_from(tmp_path: Path) -> None:
    answers = {"structured_ok": 50, "structured_n": 50, "structured_model": "tiny"}
    write_into(tmp_path / "words.json", answers, command="dsmoe first", seeds=[])
    write_into(tmp_path / "words.json", {"rows": []}, command="dsmoe second", seeds=[1])
    text = render("<!-- results:words -->\n<!-- /results:words -->\n", tmp_path)
    assert text.count("`dsmoe first`, ") == 1
    assert text.index("`dsmoe first`, ") < text.index("`dsmoe second`, ")
