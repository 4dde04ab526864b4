"""Result files, and the tables that are rendered from them."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from nasty_names import NAMES
from typer.testing import CliRunner

from dsmoe_core.errors import FormatError
from dsmoe_core.plain_text import WORD_JOINER
from pipelines import cli
from pipelines.benchmarks.results import read_result, update_result, write_result
from pipelines.benchmarks.tables import render
from pipelines.benchmarks.training_tables import NO_TRAINING, ONE_SEED


def marks(name: str) -> str:
    return f"<!-- results:{name} -->\n<!-- /results:{name} -->\n"


MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
METRICS = {"map50": [0.7, 0.8], "map": [0.4, 0.5], "precision": [0.4, 0.5], "recall": [0.4, 0.5]}


def test_kept_keys_keep_their_origin(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    update_result(path, {"a": 1}, command="first", seeds=[1])
    update_result(path, {"b": 2}, command="second", seeds=[2])
    update_result(path, {"b": 3, "c": 4}, command="third", seeds=[3])
    result = read_result(path)
    assert (result["a"], result["b"], result["c"]) == (1, 3, 4)
    assert (result["command"], result["seeds"]) == ("third", [3])
    assert {key: origin["command"] for key, origin in result["origins"].items()} == {"a": "first"}


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_file_that_is_not_a_result_file_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "demo.json").write_text(content)
    with pytest.raises(FormatError, match=r"demo\.json") as refused:
        read_result(tmp_path / "demo.json")
    commands = re.findall("`dsmoe ([^`]+)`", refused.value.remedy)
    assert commands
    for command in commands:
        assert CliRunner().invoke(cli.app, command.split()).exit_code == 0


@pytest.mark.parametrize("text", ["<!-- results:demo -->\n", marks("unknown"), marks("unknown_errors")])
def test_unclosed_mark_and_unknown_table_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FormatError):
        render(text, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_names_from_outside_are_text_in_the_tables(tmp_path: Path, name: str) -> None:
    classes = {name: {"map50": [0.5], "recall": [0.5]}}
    row = {"data": name, "model": name, "labels": 1.0, "after": 2.0, "classes": classes, "seeds": [1]}
    for file, heading in (("curve", "curve"), ("accuracy", "accuracy_classes")):
        measured = {"budget": {"minutes": 8.0}, "rows": [{**row, **METRICS}]}
        write_result(tmp_path / f"{file}.json", measured, command=name, seeds=[1])
        tokens = MARKDOWN.parse(render(marks(heading), tmp_path))
        cells = [token for before, token in pairwise(tokens) if before.type == "td_open"]
        texts = [text_of(cell) for cell in cells]
        assert texts.count(name) == 2 + (file == "accuracy")
        kinds = {child.type for cell in cells for child in cell.children or ()}
        assert kinds <= {"text", "text_special"}
        assert len(cells) == len([token for token in tokens if token.type == "th_open"])


def text_of(cell: Token) -> str:
    """The text of a cell, without the character that splits replacements."""
    return "".join(child.content for child in cell.children or ()).replace(WORD_JOINER, "")


@pytest.mark.parametrize(
    ("name", "keys", "cells"),
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
def test_training_tables_show_rows_and_tests(
    tmp_path: Path, name: str, keys: dict[str, Any], cells: str
) -> None:
    test = {**keys, "data": "deeppcb", "against": "x", "over": "seeds", "delta_map": 0.05}
    measured = {
        "budget": {"minutes": 8.0},
        "rows": [{"data": "deeppcb", **keys, "seeds": [1, 2], **METRICS}],
        "tests": [test | {"ci95": [-0.01, 0.11], "p": 0.07}],
    }
    path = tmp_path / f"{name}.json"
    write_result(path, measured, command="dsmoe", seeds=[1, 2])
    text = render(marks(name), tmp_path)
    assert "Trained for 8 minutes each, 2 seeds, mean [95 % interval over seeds]" in text
    assert f"{cells} - | - | 0.750 [0.115, 1.000] |" in text
    assert "| x | +0.050 [-0.010, +0.110] | 0.07 | seeds |" in text
    one_seed = json.loads(path.read_text()) | {"tests": []}
    one_seed["rows"][0] |= {"seeds": [1], "map50": [0.7], "epochs": 12.25, "minutes": 8.1}
    path.write_text(json.dumps(one_seed))
    assert f"{cells} 12.2 | 8.1 | 0.700 |" in render(marks(name), tmp_path)
    one_seed["rows"][0]["peak_mb"] = 1234.4
    path.write_text(json.dumps(one_seed))
    assert f"{cells} 12.2 | 8.1 | 1,234 | 0.700 |" in render(marks(name), tmp_path)
    errors = marks(f"{name}_errors")
    assert NO_TRAINING in render(errors, tmp_path), "no kinds of error in the file"
    one_seed["rows"][0]["errors"] = {"class": [0.1, 0.2], "missed": [0.01, 0.02]}
    path.write_text(json.dumps(one_seed))
    assert "| class | missed |" in render(errors, tmp_path)
    assert " | 0.150 | 0.015 |" in render(errors, tmp_path)
    path.write_text(json.dumps(one_seed | {"rows": []}))
    assert NO_TRAINING in render(marks(name), tmp_path)


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_tests_of_one_seed_have_a_note(tmp_path: Path, seeds: list[int]) -> None:
    keys = {"data": "deeppcb", "settings": "as it is", "size": "nano", "image_px": 320, "labels": 1.0}
    test = {"data": "deeppcb", "settings": "training.mixup=1", "against": "as it is", "over": "pictures"}
    measured = {
        "budget": {"epochs": 8},
        "rows": [{**keys, "seeds": seeds, **METRICS}],
        "tests": [test | {"delta_map": 0.05, "ci95": [-0.01, 0.11], "p": 0.07}],
    }
    write_result(tmp_path / "settings.json", measured, command="dsmoe", seeds=seeds)
    text = render(marks("settings"), tmp_path)
    assert "| deeppcb | unchanged | nano | 320 | 1.0 |" in text
    assert "| training.mixup=1 | unchanged | +0.050 [-0.010, +0.110] | 0.07 | images |" in text
    assert (ONE_SEED in text) == (seeds == [1])


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_forgetting_table_has_old_and_new_classes(tmp_path: Path, seeds: list[int]) -> None:
    scores: dict[str, Any] = {"old_map50": [0.7, 0.8][: len(seeds)], "new_map50": [0.4, 0.5][: len(seeds)]}
    scores |= {"old_map50_ci95": [[0.6, 0.8]] * len(seeds), "new_map50_ci95": [None] * len(seeds)}
    pair = {"data": "neu", "model": "distilled", "against": "fine-tuned"}
    test = pair | {"of": "old_map50", "over": "seeds", "delta": 0.05, "ci95": [-0.01, 0.11], "p": 0.07}
    images = pair | {"of": "new_map50", "over": "pictures", "delta": 0.1, "ci95": [0.0, 0.2], "p": 0.04}
    of_all = pair | {"of": "map", "over": "pictures", "delta_map": 0.2, "ci95": [0.1, 0.3], "p": 0.01}
    measured = {
        "new": ["a_b"],
        "budget": {"images": 4000},
        "labels": 0.5,
        "rows": [{"data": "neu", "model": "first", "seeds": seeds, **scores}],
        "tests": [of_all, *([test] if len(seeds) > 1 else []), images],
    }
    write_result(tmp_path / "forgetting.json", measured, command="dsmoe", seeds=seeds)
    text = render(marks("forgetting"), tmp_path)
    assert "4,000 images seen" in text
    row = "| neu | first | 0.700 [0.600, 0.800] | 0.400 |" if len(seeds) == 1 else "| neu | first | 0.750 ["
    assert row in text
    assert ("| neu | old classes | +0.050 [-0.010, +0.110] | 0.07 | seeds |" in text) == (len(seeds) > 1)
    assert "| neu | new classes | +0.100 [+0.000, +0.200] | 0.04 | images |" in text
    assert (ONE_SEED in text) == (len(seeds) == 1)
    path = tmp_path / "forgetting.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rows": []}))
    assert NO_TRAINING in render(marks("forgetting"), tmp_path)


def test_curve_table_has_a_column_for_each_budget(tmp_path: Path) -> None:
    row = {"data": "deeppcb", "labels": 0.16, "model": "nano", "seeds": [1]}
    rows = [
        row | {"after": 2.0, "map50": [0.5], "map": [0.25]},
        row | {"after": 0.5, "map50": [0.3], "map": [0.125]},
        row | {"after": 2.0, "model": "yolov8n", "map50": [0.2, 0.4], "map": [0.1, 0.1]},
    ]
    write_result(tmp_path / "curve.json", {"rows": rows}, command="dsmoe", seeds=[1])
    text = render(marks("curve"), tmp_path)
    assert "| data | labels | model | 0.5 min | 2 min |" in text
    assert "| deeppcb | 0.16 | nano | 0.300 / 0.125 | 0.500 / 0.250 |" in text
    assert "| deeppcb | 0.16 | yolov8n | - | 0.300 / 0.100 |" in text


def test_text_table_has_the_held_out_class_and_the_valid_replies(tmp_path: Path) -> None:
    test = {"against": "random", "over": "pictures", "delta_map": 0.12, "ci95": [0.1, 0.14], "p": 0.002}
    row = {"data": "deeppcb", "class": "spur", "asked": "alone", "budget": {"epochs": 8}, "seeds": [1]}
    row |= {"right": [0.2], "name": [0.1], "random": [0.08], "tests": [test]}
    measured = {"held_out_class": [row], "structured_ok": 49, "structured_n": 50, "structured_model": "tiny"}
    write_result(tmp_path / "words.json", measured, command="dsmoe", seeds=[1])
    text = render(marks("words"), tmp_path)
    assert "trained for 8 epochs" in text
    cells = "| deeppcb | spur | this class only | 0.200 | 0.100 | 0.080 | +0.120 [+0.100, +0.140], 0.002 |"
    assert cells in text
    assert "`tiny`" in text
    assert "49 of 50." in text
    row["tests"] = [test | {"over": "seeds", "delta_map": 0.3}, test]
    write_result(tmp_path / "words.json", measured, command="dsmoe", seeds=[1])
    assert "| +0.300 [+0.100, +0.140], 0.002 |" in render(marks("words"), tmp_path)


def test_table_names_every_command_that_wrote_the_file(tmp_path: Path) -> None:
    replies = {"structured_ok": 50, "structured_n": 50, "structured_model": "tiny"}
    update_result(tmp_path / "words.json", replies, command="dsmoe first", seeds=[])
    update_result(tmp_path / "words.json", {"rows": []}, command="dsmoe second", seeds=[1])
    text = render(marks("words"), tmp_path)
    assert text.count("`dsmoe first`, ") == 1
    assert text.index("`dsmoe first`, ") < text.index("`dsmoe second`, ")


ROW = {"device": "cpu", "image_px": 640, "ms_quartiles": [1, 3], "ratio_to_eager": 1.0}
LATENCY: dict[str, Any] = {
    "size": "base",
    "image_px": 640,
    "threads": 2,
    "rounds": 20,
    "encoder_ms": 200.0,
    "after_encoder_ms": 80.0,
    "rows": [
        {**ROW, "runtime": "eager", "dtype": "fp32", "batch": 1, "ms": 280, "pictures_per_s": 3.6},
        {**ROW, "runtime": "eager", "dtype": "fp32", "batch": 4, "ms": 800, "pictures_per_s": 5.0},
    ],
}
PARITY: dict[str, Any] = {
    "data": "deeppcb",
    "pictures": 100,
    "size": "nano",
    "image_px": 320,
    "rows": [
        {"runtime": r, "dtype": d, "findings": 9, "matched": 1.0, "worst_iou": 1.0, "worst_score": 0.0}
        | {"map50": m, "map": m / 2}
        for r, d, m in (("eager", "fp32", 0.5), ("openvino", "int8", 0.45))
    ],
}


def test_latency_table_shows_one_image_the_best_batch_and_the_parity(tmp_path: Path) -> None:
    write_result(tmp_path / "latency.json", LATENCY, command="dsmoe", seeds=[1])
    text = render(marks("latency"), tmp_path)
    assert "the encoder takes 200 ms and everything after it 80 ms, 40% of that" in text
    assert "| eager, fp32, cpu | 280 (1.00 to 3.00) | 1.00 | 5.0 (4) |" in text
    assert "int8" not in text
    write_result(tmp_path / "latency.json", LATENCY | {"findings": PARITY}, command="dsmoe", seeds=[1])
    text = render(marks("latency"), tmp_path)
    assert "| openvino, int8 | 9 | 100.00% | 1.0000 | 0.0000 | 0.450 | -0.050 |" in text


def test_latency_table_compares_a_gpu_with_the_goals_and_names_left_out_runtimes(tmp_path: Path) -> None:
    gpu = {**ROW, "device": "cuda", "runtime": "compile", "dtype": "bf16"}
    rows = [
        *LATENCY["rows"],
        {**gpu, "batch": 1, "ms": 2.514, "pictures_per_s": 397.8},
        {**gpu, "batch": 64, "ms": 30.0, "pictures_per_s": 2133.4},
    ]
    measured = LATENCY | {"rows": rows, "peak_tflops": 712.3, "share_of_peak": 0.0987}
    left_out = {"openvino, fp32, cpu": "the package openvino is missing"}
    write_result(tmp_path / "latency.json", measured | {"left_out": left_out}, command="dsmoe", seeds=[1])
    text = render(marks("latency"), tmp_path)
    assert "| compile, bf16, cuda | 2.51 (1.00 to 3.00) | 1.00 | 2133.4 (64) |" in text
    assert "2.51 ms for one image (goal: 3)" in text
    assert "2,133 images per second (goal: 2,000), 9.9% of the 712 TFLOP/s" in text
    assert "openvino, fp32, cpu: the package openvino is missing." in text


def test_table_shows_what_was_selected_and_the_groups(tmp_path: Path) -> None:
    selected = [
        {"model": model, "epochs": epochs, "inner_map": 0.5, "converged": epochs == 20, "tried": []}
        for model, epochs in (("yolov8n", 20), ("yolov8n-rate2", 40))
    ]
    row = {"data": "deeppcb", "model": "yolov8n", "seeds": [1, 2], **METRICS, "selected": selected}
    measured = {
        "budget": {"epochs": 10, "max_epochs": 40, "converge": 1},
        "inner": {"share": 0.2, "by": "^[0-9]{5}"},
        "by": "^[0-9]{5}",
        "rows": [row],
        "tests": [
            {"data": "deeppcb", "model": "nano", "against": "yolov8n", "over": "pictures"}
            | {"delta_map": 0.05, "ci95": [-0.01, 0.11], "p": 0.07}
        ],
    }
    write_result(tmp_path / "accuracy.json", measured, command="dsmoe", seeds=[1, 2])
    text = render(marks("accuracy"), tmp_path)
    assert "10, 20, 40, ... up to 40 epochs" in text
    assert "20% of the training images" in text
    cells = "| yolov8n, yolov8n-rate2 | 20 epochs, 40 epochs | 0.500 [0.500, 0.500] | 1 of 2 |"
    assert cells in text
    assert text.count("`^[0-9]{5}`") == 2
    write_result(tmp_path / "accuracy.json", measured | {"evaluated_on": "inner"}, command="d", seeds=[1])
    assert "Evaluated on 20%" in render(marks("accuracy"), tmp_path)


def test_lines_table_compares_together_and_alone(tmp_path: Path) -> None:
    def difference(delta: float) -> dict[str, Any]:
        return {"delta": delta, "ci95": [delta - 0.1, delta + 0.1], "p": 0.5}

    both = {"map50": difference(0.2), "map": difference(-0.1)}
    rows = [
        {"settings": "as it is", "trained": trained, "data": data, "seeds": [1], "map50": [m], "map": [m / 2]}
        for data in ("boards", "mean")
        for trained, m in (("together", 0.8), ("alone", 0.6))
    ]
    tests = [
        {"settings": "as it is", "against": "alone", "data": data, **both} for data in ("boards", "mean")
    ]
    tests.append({"settings": "model.experts=4", "against": "as it is", "data": "mean", **both, "map": None})
    specialisation = [{"settings": "as it is", "seed": 1, "share": 0.25, "by_chance": 0.01, "p": 0.005}]
    head = {"budget": {"images": 900}, "common": "model.top_k=2"}
    measured = {**head, "rows": rows, "tests": tests, "specialisation": specialisation}
    write_result(tmp_path / "lines.json", measured, command="dsmoe", seeds=[1])
    text = render(marks("lines"), tmp_path)
    assert "900 images" in text
    assert "`model.top_k=2`" in text
    cells = "0.800 | 0.600 | +0.200 [+0.100, +0.300] | 0.400 | 0.300 | -0.100 [-0.200, +0.000] |"
    assert f"| unchanged | boards | {cells}" in text
    assert f"| unchanged | mean | {cells}" in text
    assert "| model.experts=4 | mean | +0.200 [+0.100, +0.300] | - |" in text
    assert "| unchanged | 1 | 0.250 | 0.010 | 0.005 |" in text
    write_result(tmp_path / "lines.json", measured | {"rows": []}, command="dsmoe", seeds=[1])
    assert NO_TRAINING in render(marks("lines"), tmp_path)
