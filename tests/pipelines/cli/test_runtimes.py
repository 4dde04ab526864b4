"""dsmoe export and dsmoe predict, with a model folder and its exports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from exports import VOCABULARY, Exports
from PIL import Image
from tiny import HashEncoder

from pipelines import cli
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.workspace.registry import Registry, new_card
from pipelines.workspace.workspace import Workspace
from tests.pipelines.blocks import COLOURS

Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _hash_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())


@pytest.fixture
def images(blocks: Path, tmp_path: Path) -> Path:
    """A folder with three images, one of them with transparency, and a damaged file."""
    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted((blocks / "images").iterdir())[:3]:
        shutil.copy(path, folder / path.name)
    first = sorted(folder.iterdir())[0]
    Image.open(first).convert("RGBA").save(first.with_suffix(".png"))
    (folder / "torn.png").write_bytes(b"no image")
    return folder


def predict(model: Path | str, images: Path, *options: str | Path) -> dict[str, Any]:
    out = images.parent / "predictions.json"
    words = ["predict", model, "--images", images, "--json", out, *options]
    assert cli.run([str(word) for word in words]) == 0
    document: dict[str, Any] = json.loads(out.read_text())
    return document


def test_predictions_are_a_coco_document(exports: Exports, images: Path, capsys: Out) -> None:
    document = predict(exports.model, images)
    assert document["info"]["runtime"] == "eager"
    assert document["info"]["precision"] == "bf16"
    assert document["info"]["class_book"] == "v1"
    assert [c["name"] for c in document["categories"]] == list(VOCABULARY.names)
    assert [image["file_name"] for image in document["left_out"]] == ["torn.png"]
    assert "torn.png" in capsys.readouterr().out
    assert len(document["images"]) == 3
    for image in document["images"]:
        assert (images / image["file_name"]).is_file()
        assert len(image["routing"]["experts"]) == len(image["routing"]["weights"]) >= 2
        assert sum(image["routing"]["weights"]) == pytest.approx(1.0, abs=1e-3)
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    assert [row["id"] for row in document["annotations"]] == list(range(1, len(document["annotations"]) + 1))
    for row in document["annotations"]:
        x, y, width, height = row["bbox"]
        image_width, image_height = sizes[row["image_id"]]
        assert x >= 0 <= y
        assert x + width <= image_width + 1e-3
        assert y + height <= image_height + 1e-3
        label = VOCABULARY.names[row["category_id"] - 1]
        assert row["probabilities"][label] == row["score"]


def test_pycocotools_reads_the_document(exports: Exports, images: Path, capsys: Out) -> None:
    from pycocotools.coco import COCO

    document = predict(exports.model, images)
    coco = COCO()
    coco.dataset = {name: document[name] for name in ("info", "images", "categories")} | {"annotations": []}
    coco.createIndex()
    assert len(coco.loadRes(document["annotations"]).anns) == len(document["annotations"]) > 0


def test_runtime_that_does_not_fit_the_export_is_refused_in_one_line(
    exports: Exports, images: Path, capsys: Out
) -> None:
    words = ["predict", exports.openvino, "--images", images, "--json", "x.json", "--runtime", "onnxruntime"]
    assert cli.run([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert "onnxruntime" in error
    assert "--format onnx" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("export_format", "runtime"), [("onnx", "onnxruntime"), ("onnx", "openvino"), ("openvino", "openvino")]
)
def test_every_runtime_gives_the_same_predictions(
    exports: Exports, images: Path, export_format: str, runtime: str, capsys: Out
) -> None:
    folder: Path = getattr(exports, export_format)
    expected = predict(exports.model, images, "--precision", "fp32", "--min-score", "0.2")
    actual = predict(folder, images, "--runtime", runtime, "--min-score", "0.2", "--batch", "2")
    assert actual["info"] == expected["info"] | {"runtime": runtime}
    assert len(expected["annotations"]) == len(actual["annotations"]) > 0
    for a, b in zip(expected["annotations"], actual["annotations"], strict=True):
        assert a["bbox"] == pytest.approx(b["bbox"], abs=0.01)
        assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-4)
    for a, b in zip(expected["images"], actual["images"], strict=True):
        assert a["routing"]["experts"] == b["routing"]["experts"]


def test_class_book_determines_the_classes(exports: Exports, images: Path) -> None:
    book = images.parent / "classes.yaml"
    book.write_text("classes:\n- {name: torn, description: a torn edge}\n")
    document = predict(exports.onnx, images, "--class-book", book)
    assert [c["name"] for c in document["categories"]] == ["torn"]
    assert {tuple(row["probabilities"]) for row in document["annotations"]} == {("torn",)}


def export(exports: Exports, *words: str | Path) -> int:
    with exports.traced():
        return cli.run(["export", *map(str, words)])


def test_export_replaces_an_earlier_one(exports: Exports, tmp_path: Path, capsys: Out) -> None:
    out = tmp_path / "line"
    assert export(exports, exports.model, "--format", "onnx", "--out", out) == 0
    assert "PyTorch" in capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert names == {"export.json", "text.safetensors", "model.onnx"}
    assert export(exports, exports.model, "--format", "openvino", "--precision", "bf16", "--out", out) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {"export.json", "text.safetensors", "model.xml", "model.bin"}
    assert [path.name for path in tmp_path.iterdir()] == ["line"]


def test_failed_export_keeps_the_earlier_one(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    out = tmp_path / "line"
    shutil.copytree(exports.onnx, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr("dsmoe_core.export._difference", lambda *_: 1 / 0)
    assert export(exports, exports.model, "--format", "openvino", "--out", out) == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["line"]


def test_folder_of_other_files_is_not_replaced(exports: Exports, tmp_path: Path, capsys: Out) -> None:
    (tmp_path / "thesis.tex").touch()
    assert export(exports, exports.model, "--format", "onnx", "--out", tmp_path) == 2
    assert "thesis.tex" in capsys.readouterr().err


def test_int8_needs_images(exports: Exports, tmp_path: Path, capsys: Out) -> None:
    words = (exports.model, "--format", "openvino", "--precision", "int8", "--out", tmp_path / "out")
    assert export(exports, *words) == 2
    assert "--calibration" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert export(exports, *words, "--calibration", tmp_path / "empty") == 2
    assert "empty" in capsys.readouterr().err


@pytest.mark.slow
def test_int8_is_calibrated_and_predicts(exports: Exports, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "eight"
    words = ("--format", "openvino", "--precision", "int8", "--calibration", images, "--out", out)
    assert export(exports, exports.model, *words) == 0
    document = predict(out, images)
    assert document["info"]["precision"] == "int8"
    assert document["annotations"]


def test_workspace_model_uses_its_class_book(
    exports: Exports, workspace: Workspace, images: Path, capsys: Out
) -> None:
    registry: Registry = workspace.registry
    shutil.copytree(exports.model, registry.folder("r0-1"))
    card = new_card("r0-1", number=0, parent=None, dataset_version="d", class_book="b", training={})
    registry.register(card)
    registry.promote("r0-1", "the first")
    document = predict("champion", images, "--workspace", workspace.path)
    assert {c["name"] for c in document["categories"]} == set(COLOURS)
    assert (
        cli.run(["predict", "r9", "--images", str(images), "--json", "x", "--workspace", str(workspace.path)])
        == 2
    )
    assert "'r9'" in capsys.readouterr().err


def test_export_can_be_evaluated(exports: Exports, blocks: Path, tmp_path: Path) -> None:
    book = tmp_path / "classes.yaml"
    book.write_text(
        "classes:\n" + "".join(f"- {{name: {name}, description: a {name}}}\n" for name in COLOURS)
    )
    words = ["evaluate", exports.onnx, "--annotations", blocks / "val.json", "--images", blocks / "images"]
    words += ["--class-book", book, "--json", tmp_path / "out.json", "--resamples", "100"]
    assert cli.run([str(word) for word in words]) == 0
    assert 0 <= json.loads((tmp_path / "out.json").read_text())["total"]["map"] <= 1
