"""dsmoe evaluate, with the stub detector of a workspace and with a network's folder."""

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
from dsmoe_core.config import TrainingConfig
from dsmoe_core.data import coco, voc, yolo
from dsmoe_core.schema import ClassText, Vocabulary
from pipelines import cli
from pipelines.detectors.backend import DSMoEBackend
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.simulated_annotator import load_truth
from pipelines.workspace.registry import new_card
from pipelines.workspace.workspace import Workspace
from tests.pipelines.blocks import COLOURS

Out = pytest.CaptureFixture[str]


@pytest.fixture
def models(workspace: Workspace, blocks: Path) -> Path:
    """A workspace with "early", which saw one image, and "late", the champion, which saw all."""
    pool = list(load_truth(blocks / "train.json", workspace).values())
    for name, seen in (("early", pool[:1]), ("late", pool)):
        StubDetector().fit(
            images=seen,
            vocabulary=workspace.class_book().vocabulary(),
            training=TrainingConfig(),
            out=workspace.registry.folder(name),
            start_from=None,
        )
        workspace.registry.register(
            new_card(name, number=0, parent=None, dataset_version="d", class_book="b", training={})
        )
    workspace.registry.promote("late", "best")
    return workspace.path


@pytest.fixture
def data(blocks: Path, tmp_path: Path) -> Path:
    """A copy of the images that a test may damage."""
    return Path(shutil.copytree(blocks, tmp_path / "data"))


def evaluate(data: Path, *words: str | Path) -> int:
    """Options given again in ``words`` count."""
    given = ("--annotations", data / "val.json", "--images", data / "images", "--resamples", "100")
    return cli.run([str(word) for word in ("evaluate", *given, *words)])


def evaluated(data: Path, *words: str | Path) -> dict[str, Any]:
    """What --json holds after a run that succeeds."""
    assert evaluate(data, *words, "--json", data / "out.json") == 0
    answer: dict[str, Any] = json.loads((data / "out.json").read_text())
    return answer


def test_a_workspace_s_model_from_anywhere_with_a_report(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = evaluated(data, "champion", "--workspace", models, "--report", "report")
    said = capsys.readouterr().out
    assert answer["model"]["name"] == "late"
    assert (answer["total"]["images"], answer["data"]["left_out"]) == (5, [])
    assert f"{answer['total']['map50']:.3f}" in said
    assert "report/report.html is written" in said
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"report.html", "evaluation.json", "worst"}
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text()) == answer
    assert len(list((tmp_path / "report" / "worst").iterdir())) == len(answer["worst"]) > 0


def test_the_same_seed_gives_the_same_figures_and_another_other_intervals(models: Path, data: Path) -> None:
    def run(seed: str) -> dict[str, Any]:
        answer = evaluated(data, "early", "--workspace", models, "--seed", seed)
        return {key: value for key, value in answer.items() if key not in ("command", "date", "seed")}

    one = run("1")
    assert one == run("1")
    other = run("2")
    assert one["total"]["map_ci95"] != other["total"]["map_ci95"]
    assert one["total"]["map"] == other["total"]["map"]


def test_two_models_are_compared(
    models: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.chdir(models)  # where ids are looked up if nothing else is said
    answer = evaluated(data, "late", "--against", "early")
    row = answer["against"]["figures"]["map"]
    assert row["this"] > row["other"]
    assert row["ci95"][0] <= row["delta"] <= row["ci95"][1]
    assert "mAP@.5:.95 against early: +" in capsys.readouterr().out
    alone = evaluated(data, "early")
    assert row["other"] == alone["total"]["map"]


def test_trainings_from_several_seeds_have_means_and_are_paired(
    models: Path, data: Path, tmp_path: Path, capsys: Out
) -> None:
    names = ("late", "--also", "early", "--against", "early", "--against", "early")
    answer = evaluated(data, *names, "--workspace", models, "--report", tmp_path / "report")
    late, early = (evaluated(data, name, "--workspace", models)["total"] for name in ("late", "early"))
    over = answer["trainings"]
    assert [one["name"] for one in over["models"]] == ["late", "early"]
    assert over["figures"]["map"]["values"] == [late["map"], early["map"]]
    assert over["figures"]["map"]["mean"] == pytest.approx((late["map"] + early["map"]) / 2)
    assert over["figures"]["recall"]["values"] == [late["best"]["recall"], early["best"]["recall"]]
    test = over["against"]["tests"]["map"]
    assert test["seeds"]["delta"] == pytest.approx((late["map"] - early["map"]) / 2)
    assert test["seeds"]["p"] == pytest.approx(0.5)  # Student's t of (d, 0): t = 1 with one degree of freedom
    assert test["images"]["ci95"][0] <= test["images"]["delta"] <= test["images"]["ci95"][1]
    assert answer["total"] == late
    said, page = capsys.readouterr().out, (tmp_path / "report" / "report.html").read_text()
    assert "2 trainings: mean and 95 % interval" in said
    assert "Over 2 trainings" in page


def test_equal_trainings_do_not_differ(models: Path, data: Path) -> None:
    same = ("late", "--also", "late", "--against", "late", "--against", "late", "--workspace", models)
    tests = evaluated(data, *same)["trainings"]["against"]["tests"]
    assert {one["seeds"]["p"] for one in tests.values()} == {1.0}


def test_trainings_are_compared_with_as_many(models: Path, data: Path, capsys: Out) -> None:
    assert evaluate(data, "late", "--also", "early", "--against", "early", "--workspace", models) == 2
    assert "2 trainings are to be compared with 1" in capsys.readouterr().err
    assert evaluate(data, "late", "--against", "early", "--against", "late", "--workspace", models) == 2


def test_every_format_gives_the_same_figures(models: Path, data: Path, tmp_path: Path) -> None:
    known = coco.read(data / "val.json")
    voc.write(known, tmp_path / "voc")
    yolo.write(known, tmp_path / "yolo")
    expected = evaluated(data, "late", "--workspace", models)
    for name in ("voc", "yolo"):
        answer = evaluated(data, "late", "--workspace", models, "--annotations", tmp_path / name)
        assert answer["total"] == expected["total"]


def test_groups_by_a_part_of_the_name_are_judged_as_if_alone(
    models: Path, data: Path, tmp_path: Path, capsys: Out
) -> None:
    model = ("early", "--workspace", models)
    answer = evaluated(data, *model, "--by", r"^val-00([01])|\.jpg", "--report", tmp_path / "report")
    assert [(g["name"], g["images"]) for g in answer["groups"]] == [("0", 1), ("1", 1), ("(others)", 3)]
    assert "(others)" in capsys.readouterr().out
    assert "Groups of images" in (tmp_path / "report" / "report.html").read_text()
    text = json.loads((data / "val.json").read_text())
    for group in answer["groups"]:
        names = {"0": ["val-000.png"], "1": ["val-001.png"]}.get(group["name"])
        images = [
            i for i in text["images"] if (i["file_name"] in (names or ())) or (not names and i["id"] > 2)
        ]
        ids = {image["id"] for image in images}
        boxes = [a for a in text["annotations"] if a["image_id"] in ids]
        (data / "part.json").write_text(json.dumps({**text, "images": images, "annotations": boxes}))
        alone = evaluated(data, *model, "--annotations", data / "part.json")
        assert {n: group.get(n) for n in ("map50", "map", "boxes")} == {
            n: alone["total"].get(n) for n in ("map50", "map", "boxes")
        }
        assert group["classes"] == {c["name"]: c["map50"] for c in alone["classes"] if "map50" in c}


def test_one_group_of_all_is_the_whole_and_none_is_asked_for_is_none(models: Path, data: Path) -> None:
    answer = evaluated(data, "late", "--workspace", models, "--by", "^val")
    (group,) = answer["groups"]
    total = answer["total"]
    assert (group["name"], group["map50"], group["map"]) == ("val", total["map50"], total["map"])
    assert {n: group[n] for n in ("precision", "recall", "f1")} == {
        n: total["best"][n] for n in ("precision", "recall", "f1")
    }
    assert "groups" not in evaluated(data, "late", "--workspace", models)


def test_images_that_cannot_be_read_are_named_and_in_no_figure(models: Path, data: Path, capsys: Out) -> None:
    whole = evaluated(data, "late", "--workspace", models)
    (data / "images" / "val-000.png").unlink()
    (data / "images" / "val-001.png").write_bytes(b"no image")
    capsys.readouterr()
    answer = evaluated(data, "late", "--workspace", models)
    lost = {p.name: len(p.annotations) for p in coco.read(data / "val.json").images[:2]}
    assert {one["name"]: one["boxes"] for one in answer["data"]["left_out"]} == lost
    assert answer["total"]["images"] == 3
    assert answer["total"]["boxes"] == whole["total"]["boxes"] - sum(lost.values())
    said = capsys.readouterr().out
    assert f"2 images with {sum(lost.values())} boxes cannot be read and are in no figure" in said
    assert "val-001.png: it is not an image" in said


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network that was never trained, and whose text encoder needs no packaged one."""
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    words = Vocabulary(tuple(ClassText(name, f"a {name} block") for name in COLOURS), (), "book")
    save_model(tmp_path / "network", build_full_network(SMALL), SMALL, words, {})
    return tmp_path / "network"


def test_a_network_s_folder_reads_the_words_that_it_was_trained_on(folder: Path, data: Path) -> None:
    Image.open(data / "images" / "val-000.png").convert("LA").save(data / "images" / "val-000.png")
    answer = evaluated(data, folder, "--report", data / "report")
    assert answer["model"] == {"name": str(folder), "class_book": "book"}
    assert [row["name"] for row in answer["classes"]] == list(COLOURS)
    assert answer["total"]["images"] == 5
    assert 0 <= answer["total"]["map"] < 0.5


def test_a_class_book_gives_it_other_words(folder: Path, data: Path, capsys: Out) -> None:
    text = (data / "val.json").read_text().replace('"brick"', '"Ziegel"')
    (data / "val.json").write_text(text)
    assert evaluate(data, folder) == 2
    error = capsys.readouterr().err
    assert "does not know 'Ziegel'; it knows rust, brick, plum" in error
    assert "--class-book" in error
    book = data / "classes.yaml"
    entries = "".join(f"- {{name: {name}, description: a {name}}}\n" for name in ("rust", "plum"))
    book.write_text(f"classes:\n{entries}- {{name: brick, description: red, aliases: [ziegel]}}\n")
    answer = evaluated(data, folder, "--class-book", book)
    assert [row["name"] for row in answer["classes"]] == ["rust", "plum", "brick"]


def test_mistakes_are_one_line_and_found_before_the_work(
    models: Path, data: Path, tmp_path: Path, capsys: Out
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    workspace = ("--workspace", models)
    orders: list[tuple[tuple[str | Path, ...], str]] = [
        (("nobody", *workspace), "which has early, late"),
        (("../models/late", *workspace), "is not in"),
        (("nobody",), "model 'nobody' is not a folder"),
        ((tmp_path / "mine",), "holds no whole model"),
        (("late", *workspace, "--report", tmp_path / "mine"), "notes.txt, which would be lost"),
        (("late", *workspace, "--annotations", tmp_path / "gone.json"), "gone.json is not there"),
        (("late", *workspace, "--images", tmp_path / "mine"), "none of 5 annotated images"),
        (("late", "--workspace", tmp_path), "no workspace"),
        (("late", *workspace, "--by", "("), "--by is '(', which is no regular expression"),
    ]
    for words, expected in orders:
        assert evaluate(data, *words) == 2, words
        error = capsys.readouterr().err
        assert expected in error
        assert len(error.strip().splitlines()) == 1
