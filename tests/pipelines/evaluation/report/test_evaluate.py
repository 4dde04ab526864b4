"""dsmoe evaluate, with the stub detector of a workspace and with the folder of a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny import SMALL, HashEncoder

from dsmoe_core.build import build_full_network
from dsmoe_core.checkpoint import save_model
from dsmoe_core.data import coco, voc, yolo
from dsmoe_core.schema import ClassText, Vocabulary
from pipelines import cli
from pipelines.detectors.ds_moe import DSMoEBackend
from tests.pipelines.blocks import COLOURS

Out = pytest.CaptureFixture[str]


@pytest.fixture
def data(blocks: Path, tmp_path: Path) -> Path:
    """A copy of the data that a test may change."""
    return Path(shutil.copytree(blocks, tmp_path / "data"))


def evaluate(data: Path, *arguments: str | Path) -> int:
    """Run the command; ``arguments`` override the default options."""
    defaults = ("--annotations", data / "val.json", "--images", data / "images", "--resamples", "100")
    return cli.run([str(word) for word in ("evaluate", *defaults, *arguments)])


def evaluated(data: Path, *arguments: str | Path) -> dict[str, Any]:
    """The metrics that a successful run writes with --json."""
    assert evaluate(data, *arguments, "--json", data / "out.json") == 0
    metrics: dict[str, Any] = json.loads((data / "out.json").read_text())
    return metrics


def test_workspace_model_with_report(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.chdir(tmp_path)
    metrics = evaluated(data, "champion", "--workspace", models, "--report", "report")
    output = capsys.readouterr().out
    assert metrics["model"]["name"] == "late"
    assert (metrics["total"]["images"], metrics["data"]["left_out"]) == (5, [])
    assert f"{metrics['total']['map50']:.3f}" in output
    assert "report/report.html" in output
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"report.html", "evaluation.json", "worst"}
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text()) == metrics
    assert len(list((tmp_path / "report" / "worst").iterdir())) == len(metrics["worst"]) > 0


def test_seed_determines_the_intervals(models: Path, data: Path) -> None:
    def run(seed: str) -> dict[str, Any]:
        metrics = evaluated(data, "early", "--workspace", models, "--seed", seed)
        return {key: value for key, value in metrics.items() if key not in ("command", "date", "seed")}

    first = run("1")
    assert first == run("1")
    second = run("2")
    assert first["total"]["map_ci95"] != second["total"]["map_ci95"]
    assert first["total"]["map"] == second["total"]["map"]


def test_two_models_are_compared(
    models: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.chdir(models)  # the default workspace
    metrics = evaluated(data, "late", "--against", "early")
    row = metrics["against"]["metrics"]["map"]
    assert row["this"] > row["other"]
    assert row["ci95"][0] <= row["delta"] <= row["ci95"][1]
    assert f"{row['delta']:+.3f}" in capsys.readouterr().out
    single = evaluated(data, "early")
    assert row["other"] == single["total"]["map"]


def test_several_trainings_have_means_and_paired_tests(
    models: Path, data: Path, tmp_path: Path, capsys: Out
) -> None:
    names = ("late", "--also", "early", "--against", "early", "--against", "early")
    metrics = evaluated(data, *names, "--workspace", models, "--report", tmp_path / "report")
    late, early = (evaluated(data, name, "--workspace", models)["total"] for name in ("late", "early"))
    over = metrics["trainings"]
    assert [model["name"] for model in over["models"]] == ["late", "early"]
    assert over["metrics"]["map"]["values"] == [late["map"], early["map"]]
    assert over["metrics"]["map"]["mean"] == pytest.approx((late["map"] + early["map"]) / 2)
    assert over["metrics"]["recall"]["values"] == [late["best"]["recall"], early["best"]["recall"]]
    test = over["against"]["tests"]["map"]
    assert test["seeds"]["delta"] == pytest.approx((late["map"] - early["map"]) / 2)
    assert test["seeds"]["p"] == pytest.approx(0.5)  # Student's t of (d, 0): t = 1 with one degree of freedom
    assert test["images"]["ci95"][0] <= test["images"]["delta"] <= test["images"]["ci95"][1]
    assert metrics["total"] == late
    mean = f"{over['metrics']['map']['mean']:.3f}"
    assert mean in capsys.readouterr().out
    assert mean in (tmp_path / "report" / "report.html").read_text()


def test_same_trainings_do_not_differ(models: Path, data: Path) -> None:
    same = ("late", "--also", "late", "--against", "late", "--against", "late", "--workspace", models)
    tests = evaluated(data, *same)["trainings"]["against"]["tests"]
    assert {test["seeds"]["p"] for test in tests.values()} == {1.0}


def test_each_training_needs_a_baseline(models: Path, data: Path, capsys: Out) -> None:
    assert evaluate(data, "late", "--also", "early", "--against", "early", "--workspace", models) == 2
    assert "--against" in capsys.readouterr().err
    assert evaluate(data, "late", "--against", "early", "--against", "late", "--workspace", models) == 2


def test_annotation_format_does_not_change_the_metrics(models: Path, data: Path, tmp_path: Path) -> None:
    annotations = coco.read(data / "val.json")
    voc.write(annotations, tmp_path / "voc")
    yolo.write(annotations, tmp_path / "yolo")
    expected = evaluated(data, "late", "--workspace", models)
    for name in ("voc", "yolo"):
        metrics = evaluated(data, "late", "--workspace", models, "--annotations", tmp_path / name)
        assert metrics["total"] == expected["total"]


def test_group_is_evaluated_as_a_test_set_of_its_own(
    models: Path, data: Path, tmp_path: Path, capsys: Out
) -> None:
    model = ("early", "--workspace", models)
    metrics = evaluated(data, *model, "--by", r"^val-00([01])|\.jpg", "--report", tmp_path / "report")
    assert [(g["name"], g["images"]) for g in metrics["groups"]] == [("0", 1), ("1", 1), ("(others)", 3)]
    assert "(others)" in capsys.readouterr().out
    assert "(others)" in (tmp_path / "report" / "report.html").read_text()
    text = json.loads((data / "val.json").read_text())
    for group in metrics["groups"]:
        names = {"0": ["val-000.png"], "1": ["val-001.png"]}.get(group["name"])
        images = [
            i for i in text["images"] if (i["file_name"] in (names or ())) or (not names and i["id"] > 2)
        ]
        ids = {image["id"] for image in images}
        boxes = [a for a in text["annotations"] if a["image_id"] in ids]
        (data / "part.json").write_text(json.dumps({**text, "images": images, "annotations": boxes}))
        single = evaluated(data, *model, "--annotations", data / "part.json")
        assert {n: group.get(n) for n in ("map50", "map", "boxes")} == {
            n: single["total"].get(n) for n in ("map50", "map", "boxes")
        }
        assert group["classes"] == {c["name"]: c["map50"] for c in single["classes"] if "map50" in c}


def test_single_group_has_the_total_metrics(models: Path, data: Path) -> None:
    metrics = evaluated(data, "late", "--workspace", models, "--by", "^val")
    (group,) = metrics["groups"]
    total = metrics["total"]
    assert (group["name"], group["map50"], group["map"]) == ("val", total["map50"], total["map"])
    assert {n: group[n] for n in ("precision", "recall", "f1")} == {
        n: total["best"][n] for n in ("precision", "recall", "f1")
    }
    assert "groups" not in evaluated(data, "late", "--workspace", models)


def test_unreadable_images_are_listed_and_left_out(models: Path, data: Path, capsys: Out) -> None:
    complete = evaluated(data, "late", "--workspace", models)
    (data / "images" / "val-000.png").unlink()
    (data / "images" / "val-001.png").write_bytes(b"no image")
    capsys.readouterr()
    metrics = evaluated(data, "late", "--workspace", models)
    lost = {p.name: len(p.annotations) for p in coco.read(data / "val.json").images[:2]}
    assert {image["name"]: image["boxes"] for image in metrics["data"]["left_out"]} == lost
    assert metrics["total"]["images"] == 3
    assert metrics["total"]["boxes"] == complete["total"]["boxes"] - sum(lost.values())
    output = capsys.readouterr().out
    assert "val-000.png" in output
    assert "val-001.png" in output
    account = metrics["data"]["import"]
    assert (account["images_taken"], account["images_left_out"]) == (3, 2)
    assert account["boxes_left_out"] == sum(lost.values())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder with an untrained network and a fast text encoder."""
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    vocabulary = Vocabulary(tuple(ClassText(name, f"a {name} block") for name in COLOURS), (), "book")
    save_model(tmp_path / "network", build_full_network(SMALL), SMALL, vocabulary, {})
    return tmp_path / "network"


def test_model_folder_uses_its_training_vocabulary(folder: Path, data: Path) -> None:
    Image.open(data / "images" / "val-000.png").convert("LA").save(data / "images" / "val-000.png")
    metrics = evaluated(data, folder, "--report", data / "report")
    assert metrics["model"] == {"name": str(folder), "class_book": "book"}
    assert [row["name"] for row in metrics["classes"]] == list(COLOURS)
    assert metrics["total"]["images"] == 5
    assert 0 <= metrics["total"]["map"] < 0.5


def test_class_book_replaces_the_training_vocabulary(folder: Path, data: Path, capsys: Out) -> None:
    text = (data / "val.json").read_text().replace('"brick"', '"Ziegel"')
    (data / "val.json").write_text(text)
    assert evaluate(data, folder) == 2
    error = capsys.readouterr().err
    assert "'Ziegel'" in error
    assert "rust, brick, plum" in error
    assert "--class-book" in error
    book = data / "classes.yaml"
    entries = "".join(f"- {{name: {name}, description: a {name}}}\n" for name in ("rust", "plum"))
    book.write_text(f"classes:\n{entries}- {{name: brick, description: red, aliases: [ziegel]}}\n")
    metrics = evaluated(data, folder, "--class-book", book)
    assert [row["name"] for row in metrics["classes"]] == ["rust", "plum", "brick"]


def test_wrong_arguments_are_refused_in_one_line(
    models: Path, data: Path, tmp_path: Path, capsys: Out
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    workspace = ("--workspace", models)
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        (("nobody", *workspace), "early, late"),
        (("../models/late", *workspace), "../models/late"),
        (("nobody",), "'nobody'"),
        ((tmp_path / "mine",), "mine"),
        (("late", *workspace, "--report", tmp_path / "mine"), "notes.txt"),
        (("late", *workspace, "--annotations", tmp_path / "gone.json"), "gone.json"),
        (("late", *workspace, "--images", tmp_path / "mine"), "mine"),
        (("late", "--workspace", tmp_path), str(tmp_path)),
        (("late", *workspace, "--by", "("), "--by"),
    ]
    for arguments, value in cases:
        assert evaluate(data, *arguments) == 2, arguments
        error = capsys.readouterr().err
        assert value in error
        assert len(error.strip().splitlines()) == 1
