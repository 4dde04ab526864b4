"""The benchmark commands that train, with a tiny network and a fake YOLO."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import SMALL, HashEncoder
from typer.main import get_command

from dsmoe_core.config import ModelConfig, TrainingConfig
from pipelines import cli
from pipelines.benchmarks.comparison.models import ModelBuilder, Size
from pipelines.benchmarks.comparison.protocol import BenchmarkModel
from pipelines.benchmarks.comparison.yolo.yolo_model import YoloModel
from pipelines.benchmarks.results import read_result, write_result
from pipelines.cli import comparison
from pipelines.cli.options import RESULTS
from pipelines.settings.detector import backbone_of_start
from tests.pipelines.blocks import write_blocks

Out = pytest.CaptureFixture[str]
FAKE_YOLO = Path(__file__).with_name("fake_yolo.py")


class TinyModels(ModelBuilder):
    """Builds a tiny network for every preset, and YOLO with the fake runner."""

    def __init__(self, px: int) -> None:
        training = TrainingConfig(batch=5, precision="32-true")
        super().__init__(px, HashEncoder(), lambda _: Path(sys.executable), training=training)

    def preset(self, size: Size) -> ModelConfig:
        backbone = backbone_of_start(self.start)
        return SMALL.with_tiny_head(True).model_copy(update={"backbone": backbone})

    def yolo(self, size: str, rate: float = 1.0) -> BenchmarkModel:
        python = lambda _: Path(sys.executable)  # noqa: E731 - short
        return YoloModel(size, self.px, python, FAKE_YOLO, poll_s=0.05, batch=5, rate=rate)


@pytest.fixture
def run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a benchmark command on the small data set, at 64 px, into out.json; returns the exit code."""
    monkeypatch.setattr(comparison, "model_builder", TinyModels)
    shared = ["--data", str(data), "--px", "64"]
    files = ["--work", str(tmp_path / "work"), "--json", str(tmp_path / "out.json")]

    def run_command(name: str, *options: str) -> int:
        return cli.run(["benchmark", name, *shared, *files, *options])

    return run_command


ONE_RUN = ("--epochs", "1", "--seeds", "1")


def test_accuracy_is_measured_once(run: Any, tmp_path: Path, capsys: Out) -> None:
    arguments = ("accuracy", "--models", "nano,yolov8n", "--epochs", "2", "--seeds", "2")
    assert run(*arguments) == 0
    assert "4 of 4: squares, yolov8n, 64, scratch, 1.0, seed 2" in capsys.readouterr().out
    result = read_result(tmp_path / "out.json")
    assert result["seeds"] == [1, 2]
    assert result["budget"] == {"epochs": 2}
    rows = {row["model"]: row for row in result["rows"]}
    assert rows["yolov8n"]["map50"][0] > 0
    assert rows["nano"]["epochs"] == rows["yolov8n"]["epochs"] == 2.0
    assert all(len(row[key]) == 2 for row in result["rows"] for key in ("map50", "map", "f1", "recall"))
    assert {test["over"] for test in result["tests"]} == {"seeds", "pictures"}
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.safetensors")}
    assert len(times) == 2
    assert run(*arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert read_result(tmp_path / "out.json") == result


def test_accuracy_with_a_share_of_the_labels(run: Any, tmp_path: Path) -> None:
    assert run("accuracy", "--models", "nano", "--labels", "0.5", *ONE_RUN) == 0
    (row,) = read_result(tmp_path / "out.json")["rows"]
    assert row["labels"] == 0.5
    (folder,) = (tmp_path / "work").iterdir()
    record = json.loads((folder / "result.json").read_text())
    assert record["notes"]["steps"] == 1, "half of the images fit into a step"


@pytest.mark.slow
def test_accuracy_until_convergence_selects_rate_and_length(run: Any, tmp_path: Path) -> None:
    """The fake YOLO has all boxes from four epochs at rate 1, or two at rate 2, on."""
    shared = ("accuracy", "--seeds", "1", "--inner", "0.3", "--yolo-rates", "1,2")
    converge = ("--models", "yolov8n,nano", "--converge", "1", "--epochs", "1", "--max-epochs", "3")
    assert run(*shared, *converge, "--by", "[0-9]+") == 0
    result = read_result(tmp_path / "out.json")
    assert result["budget"] == {"epochs": 1, "max_epochs": 3, "converge": 1}
    assert (result["by"], result["inner"]) == ("[0-9]+", {"share": 0.3, "by": "[0-9]+"})
    yolo, nano = (row["selected"][0] for row in result["rows"])
    assert (yolo["model"], yolo["epochs"], yolo["converged"]) == ("yolov8n-rate2", 2, False)
    assert [(one["model"], one["epochs"]) for one in yolo["tried"]] == [
        (name, epochs) for epochs in (1, 2) for name in ("yolov8n", "yolov8n-rate2")
    ]
    assert nano["model"] == "nano"
    records = [json.loads(path.read_text()) for path in (tmp_path / "work").rglob("result-by-*.json")]
    assert len(records) == len(yolo["tried"]) + len(nano["tried"])
    assert run(*shared, "--models", "yolov8n", "--epochs", "4") == 0
    yolo = read_result(tmp_path / "out.json")["rows"][0]["selected"][0]
    assert (yolo["model"], yolo["converged"]) == ("yolov8n", False)


@pytest.mark.slow
def test_curve_has_a_training_for_each_budget(run: Any, tmp_path: Path) -> None:
    arguments = ("curve", "--models", "nano,yolov8n", "--seeds", "1")
    assert run(*arguments, "--minutes", "0.02,0.01") == 0
    result = read_result(tmp_path / "out.json")
    assert [(row["after"], row["model"]) for row in result["rows"]] == [
        (0.02, "nano"),
        (0.02, "yolov8n"),
        (0.01, "nano"),
        (0.01, "yolov8n"),
    ]
    assert [(test["after"], test["against"]) for test in result["tests"]] == [
        (0.02, "yolov8n"),
        (0.01, "yolov8n"),
    ]
    for wrong in ("", "0", "1,1", "soon"):
        assert run(*arguments, "--minutes", wrong) == 2


@pytest.mark.slow
def test_ablation_trains_each_row(run: Any, tmp_path: Path) -> None:
    assert run("ablation", "--rows", "E,F,no-tiny-head", *ONE_RUN) == 0
    result = read_result(tmp_path / "out.json")
    assert [row["row"] for row in result["rows"]] == ["E", "F", "no-tiny-head"]
    assert [test["against"] for test in result["tests"]] == ["F", "no-tiny-head"]
    assert {(row["start"], row["labels"]) for row in result["rows"]} == {("scratch", 1.0)}
    assert len(list((tmp_path / "work").iterdir())) == 3


def test_ablation_starts_from_imagenet_weights_on_a_share_of_the_labels(run: Any, tmp_path: Path) -> None:
    options = ("--rows", "F", "--start", "imagenet-lite", "--labels", "0.5")
    assert run("ablation", *options, *ONE_RUN) == 0
    (row,) = read_result(tmp_path / "out.json")["rows"]
    assert (row["start"], row["labels"]) == ("imagenet-lite", 0.5)
    (folder,) = (tmp_path / "work").iterdir()
    card = json.loads((folder / "model" / "model.json").read_text())
    assert (card["config"]["backbone"], card["training"]["encoder"]) == ("efficientnet-lite0", "frozen")
    assert json.loads((folder / "result.json").read_text())["notes"]["steps"] == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["ablation", "--start", "imagenet-lite"], "row A"),
        (["settings", "--try", "model.ablation=A"], "model.ablation=A"),
        (["settings", "--try", "model.experts=5", "--try", "model.backbone=tiny-vit"], "tiny-vit"),
        (["lines", "--start", "imagenet-lite", "--try", "model.ablation=B"], "model.ablation=B"),
        (["words", "--start", "warm", "--size", "base"], "base"),
    ],
)
def test_weights_of_another_encoder_are_refused_before_the_first_training(
    run: Any, tmp_path: Path, arguments: list[str], named: str, capsys: Out
) -> None:
    length = [] if arguments[0] == "lines" else ["--epochs", "1"]
    assert run(*arguments, *length) == 2
    assert named in capsys.readouterr().err
    assert list((tmp_path / "work").rglob("model")) == []


def test_warmstart_trains_on_each_share(run: Any, tmp_path: Path) -> None:
    assert run("warmstart", "--shares", "0.5,1.0", "--start", "scratch", *ONE_RUN) == 0
    assert [row["labels"] for row in read_result(tmp_path / "out.json")["rows"]] == [0.5, 1.0]


@pytest.mark.slow
def test_first_model_trains_each_start_on_each_number_of_labels(run: Any, tmp_path: Path) -> None:
    options = ("--starts", "scratch", "--labels", "3,2", "--set", "schedule=wsd decay=0.5")
    assert run("first-model", *options, "--minutes", "0.02", "--seeds", "1") == 0
    rows = read_result(tmp_path / "out.json")["rows"]
    assert [(row["labels"], row["start"]) for row in rows] == [(3, "scratch"), (2, "scratch")]
    assert len(list((tmp_path / "work").iterdir())) == 2


@pytest.mark.slow
def test_first_model_tries_settings_on_an_inner_split(run: Any, tmp_path: Path) -> None:
    options = ("--starts", "scratch", "--labels", "4", "--try", "zoom=0", "--split", "inner")
    assert run("first-model", *options, "--minutes", "0.02", "--seeds", "1") == 0
    result = read_result(tmp_path / "out.json")
    assert [row["settings"] for row in result["rows"]] == ["as it is", "zoom=0"]
    assert result["evaluated_on"] == "inner"
    assert list((tmp_path / "work").glob("*/cache")) == []


@pytest.mark.parametrize(
    "options", [("--labels", "2.5"), ("--file", "masked"), ("--starts", "masked"), ("--set", "batch=no")]
)
def test_wrong_options_of_first_model_are_refused(run: Any, options: tuple[str, ...]) -> None:
    assert run("first-model", "--starts", "scratch", *options, "--minutes", "1") == 2


def test_first_model_on_more_labels_than_there_are_is_refused_before_the_first_training(
    run: Any, tmp_path: Path, capsys: Out
) -> None:
    assert run("first-model", "--starts", "scratch", "--labels", "2,11", "--minutes", "1") == 2
    assert "11" in capsys.readouterr().err
    assert not list((tmp_path / "work").glob("*/result.json"))
    assert not (tmp_path / "out.json").exists()


@pytest.mark.slow
def test_settings_train_once_for_each_change(run: Any, tmp_path: Path) -> None:
    changes = ["training.text_rate=1", "training.losses.box=0.05 model.experts=4"]
    options = [option for change in changes for option in ("--try", change)]
    assert run("settings", *options, "--start", "scratch", "--labels", "0.5", "--split", "val", *ONE_RUN) == 0
    result = read_result(tmp_path / "out.json")
    assert [row["settings"] for row in result["rows"]] == ["as it is", *changes]
    assert [(test["settings"], test["against"]) for test in result["tests"]] == [
        (change, "as it is") for change in changes
    ]
    assert len(list((tmp_path / "work").iterdir())) == 3


def test_settings_are_evaluated_within_train_by_default(run: Any, tmp_path: Path) -> None:
    assert (
        run("settings", "--try", "training.text_rate=1", "--start", "scratch", "--inner", "0.5", *ONE_RUN)
        == 0
    )
    result = read_result(tmp_path / "out.json")
    assert (result["evaluated_on"], result["inner"]) == ("inner", {"share": 0.5, "by": None})
    record = json.loads(next((tmp_path / "work").rglob("result.json")).read_text())
    assert record["notes"]["steps"] == 1, "five of ten images"


@pytest.mark.slow
def test_lines_are_trained_together_and_alone(run: Any, tmp_path: Path, capsys: Out) -> None:
    """Ten images and five, five per step: of three steps, two show the first line."""
    second = write_blocks(tmp_path / "second", train=5, val=2, px=96, seed=2)
    arguments = ("lines", "--data", str(second), "--seeds", "1", "--images-seen", "15")
    change = ("--set", "training.set_sampling=even", "--try", "model.experts=5")
    assert run(*arguments, *change) == 0
    result = read_result(tmp_path / "out.json")
    assert [(row["settings"], row["trained"], row["data"]) for row in result["rows"]] == [
        (settings, trained, data)
        for settings, trained in (("as it is", "together"), ("as it is", "alone"), (change[3], "together"))
        for data in ("squares", "second", "mean")
    ]
    assert (result["common"], result["start"]) == (change[1], "scratch")
    assert [(test["data"], test["against"]) for test in result["tests"]] == [
        (data, against) for against in ("alone", "as it is") for data in ("squares", "second", "mean")
    ]
    for test in result["tests"]:
        assert all(len(test[name]["ci95"]) == 2 for name in ("map50", "map"))
    for entry in result["specialisation"]:
        assert 0 <= entry["share"] <= 1
        assert [sum(images) for images in entry["images_by_expert"]] == [6, 2]
    steps = [
        (record["data"], record["notes"]["steps"])
        for path in (tmp_path / "work").rglob("result.json")
        for record in [json.loads(path.read_text())]
    ]
    assert len(steps) == 4
    assert steps.count(("squares", 3)) == 2, "the joint models"
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("result.json")}
    assert run(*arguments, *change) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    capsys.readouterr()
    assert run("lines", "--images-seen", "15") == 2
    assert "squares" in capsys.readouterr().err
    assert run("lines", "--data", str(second), "--seeds", "1", "--images-seen", "1") == 2
    assert "1 images" in capsys.readouterr().err


@pytest.fixture
def other_command(tmp_path: Path) -> None:
    """A result file of another command at the path that ``run`` writes to."""
    write_result(tmp_path / "out.json", {"structured_ok": 3, "rows": []}, command="dsmoe other", seeds=[7])


@pytest.mark.usefixtures("other_command")
def test_words_keeps_the_keys_of_other_commands(run: Any, tmp_path: Path) -> None:
    assert run("words", *ONE_RUN) == 0
    result = read_result(tmp_path / "out.json")
    assert [row["words"] for row in result["rows"]] == ["right", "name", "random", "swapped"]
    assert result["structured_ok"] == 3
    assert result["origins"]["structured_ok"]["command"] == "dsmoe other"
    assert set(result["right_minus_random"]) == {"squares"}


@pytest.mark.usefixtures("other_command")
def test_held_out_keeps_the_keys_of_other_commands(run: Any, tmp_path: Path, capsys: Out) -> None:
    assert run("held-out", "--class", "plum", *ONE_RUN) == 0
    result = read_result(tmp_path / "out.json")
    assert result["structured_ok"] == 3
    for row in result["held_out_class"]:
        assert (row["data"], row["class"], row["budget"]) == ("squares", "plum", {"epochs": 1})
        assert len(row["right"]) == len(row["random"]) == 1
    assert "squares without plum, seed 1" in capsys.readouterr().out


def test_words_with_an_extra_set_and_class_subsets(run: Any, tmp_path: Path, capsys: Out) -> None:
    extra = write_blocks(tmp_path / "others", train=5, val=2, px=96)
    arguments = ("words", *ONE_RUN, "--class-subsets", "0.5")
    assert run(*arguments, "--with", str(extra)) == 0
    rows = read_result(tmp_path / "out.json")["rows"]
    assert {(row["data"], *row["with"], row["class_subsets"]) for row in rows} == {("squares", "others", 0.5)}
    (folder,) = (tmp_path / "work").iterdir()
    record = json.loads((folder / "result.json").read_text())
    assert (record["notes"]["steps"], record["epochs"]) == (3, 1.0), "ten images and five, five per step"
    capsys.readouterr()
    assert run(*arguments, "--with", str(tmp_path / "nowhere")) == 2
    assert "nowhere/train.json" in "".join(capsys.readouterr().err.split())
    assert run(*arguments, "--with", str(extra), "--data", str(extra)) == 2
    assert str(extra) in "".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_forgetting_has_three_models(run: Any, tmp_path: Path, capsys: Out) -> None:
    assert run("forgetting", "--new", "plum", "--images-seen", "5", "--seeds", "1") == 0
    result = read_result(tmp_path / "out.json")
    assert [row["model"] for row in result["rows"]] == ["first", "fine-tuned", "distilled"]
    assert (result["budget"], result["size"], result["image_px"]) == ({"images": 5}, "nano", 64)
    assert (result["start"], result["labels"]) == ("scratch", 1.0)
    assert {(test["of"], test["over"]) for test in result["tests"]} == {
        (of, "pictures") for of in ("map", "old_map50", "new_map50")
    }
    assert "squares, plum later, seed 1" in capsys.readouterr().out


@pytest.mark.slow
def test_forgetting_starts_from_imagenet_weights_on_a_share_of_the_labels(run: Any, tmp_path: Path) -> None:
    shared = ("--new", "plum", "--images-seen", "5", "--seeds", "1")
    assert run("forgetting", *shared, "--start", "imagenet-lite", "--labels", "0.9") == 0
    result = read_result(tmp_path / "out.json")
    assert (result["start"], result["labels"]) == ("imagenet-lite", 0.9)
    cards = [json.loads(path.read_text()) for path in (tmp_path / "work").rglob("model.json")]
    assert [card["config"]["backbone"] for card in cards] == ["efficientnet-lite0"] * 3
    assert run("forgetting", *shared, "--labels", "0") == 2


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [(("words", *ONE_RUN), "rows"), (("held-out", "--class", "plum", *ONE_RUN), "held_out_class")],
)
@pytest.mark.slow
def test_texts_are_evaluated_from_imagenet_weights(
    run: Any, tmp_path: Path, arguments: tuple[str, ...], rows: str
) -> None:
    assert run(*arguments, "--start", "imagenet-lite") == 0
    assert {row["start"] for row in read_result(tmp_path / "out.json")[rows]} == {"imagenet-lite"}
    (card,) = (json.loads(path.read_text()) for path in (tmp_path / "work").rglob("model.json"))
    assert (card["config"]["backbone"], card["training"]["encoder"]) == ("efficientnet-lite0", "frozen")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["accuracy"], "--minutes or --epochs"),
        (["accuracy", "--minutes", "1", "--epochs", "1"], "--minutes or --epochs"),
        (["accuracy", "--epochs", "1", "--models", "detr"], "'detr'"),
        (["accuracy", "--epochs", "1", "--labels", "0"], "0.0"),
        (["accuracy", "--minutes", "1", "--converge", "1"], "--minutes 1"),
        (["accuracy", "--epochs", "9", "--converge", "1", "--max-epochs", "8"], "--epochs 9"),
        (["accuracy", "--epochs", "1", "--yolo-rates", "0"], "'0'"),
        (["accuracy", "--epochs", "1", "--by", "("], "'('"),
        (["lines", "--labels", "2"], "2.0"),
        (["ablation", "--epochs", "1", "--rows", "G"], "'G'"),
        (["settings", "--epochs", "1", "--try", "training.speed=2"], "training.speed"),
        (["settings", "--epochs", "1", "--try", "training.text_rate=fast"], "training.text_rate: "),
        (["settings", "--epochs", "1", "--try", "training.text_rate"], "NAME=VALUE"),
        (["settings", "--epochs", "1", "--try", "training.seed=2"], "'training.seed=2'"),
        (
            ["settings", "--epochs", "1", *["--try", "training.mixup=1"] * 2],
            "training.mixup=1, training.mixup=1",
        ),
        (["warmstart", "--epochs", "1", "--shares", "much"], "'much'"),
        (["warmstart", "--epochs", "1", "--warm", "gone.safetensors"], "gone.safetensors"),
        (["held-out", "--epochs", "1", "--class", "dent"], "'dent'"),
        (["forgetting", "--new", "dent"], "'dent'"),
        (["forgetting", "--new", ","], "--new"),
    ],
)
def test_wrong_options_are_reported(run: Any, arguments: list[str], named: str, capsys: Out) -> None:
    assert run(*arguments) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "file", "seeds"),
    [
        ("accuracy", "accuracy", 3),
        ("curve", "curve", 1),
        ("held-out", "words", 3),
        ("forgetting", "forgetting", 1),
    ],
)
def test_result_file_and_seeds_have_defaults(name: str, file: str, seeds: int) -> None:
    command: Any = get_command(comparison.app)
    defaults = {option.name: option.default for option in command.commands[name].params}
    assert (defaults["json"], defaults["seeds"]) == (RESULTS / f"{file}.json", seeds)
    assert ("epochs" in defaults) == (name not in ("curve", "forgetting"))
