"""dsmoe export and dsmoe predict: the same detections from a model and from its exports."""

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
def _hashed_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())


@pytest.fixture
def images(blocks: Path, tmp_path: Path) -> Path:
    """Three images, one of them with transparency, and one that cannot be read."""
    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted((blocks / "images").iterdir())[:3]:
        shutil.copy(path, folder / path.name)
    first = sorted(folder.iterdir())[0]
    Image.open(first).convert("RGBA").save(first.with_suffix(".png"))
    (folder / "torn.png").write_bytes(b"no image")
    return folder


def predict(model: Path | str, images: Path, *options: str | Path) -> dict[str, Any]:
    out = images.parent / "found.json"
    words = ["predict", model, "--images", images, "--json", out, *options]
    assert cli.run([str(word) for word in words]) == 0
    answer: dict[str, Any] = json.loads(out.read_text())
    return answer


def test_detections_are_a_coco_document_with_all_that_is_known(
    exports: Exports, images: Path, capsys: Out
) -> None:
    found = predict(exports.model, images)
    assert found["info"]["runtime"] == "eager"
    assert found["info"]["precision"] == "bf16"
    assert found["info"]["class_book"] == "v1"
    assert [c["name"] for c in found["categories"]] == list(VOCABULARY.names)
    assert [one["file_name"] for one in found["left_out"]] == ["torn.png"]
    assert "left out: torn.png: it is not an image" in capsys.readouterr().out
    assert len(found["images"]) == 3
    for image in found["images"]:
        assert (images / image["file_name"]).is_file()
        assert len(image["routing"]["experts"]) == len(image["routing"]["weights"]) == 2
    sizes = {image["id"]: (image["width"], image["height"]) for image in found["images"]}
    assert [one["id"] for one in found["annotations"]] == list(range(1, len(found["annotations"]) + 1))
    for one in found["annotations"]:
        x, y, width, height = one["bbox"]
        wide, high = sizes[one["image_id"]]
        assert x >= 0 <= y
        assert x + width <= wide + 1e-3
        assert y + height <= high + 1e-3
        named = VOCABULARY.names[one["category_id"] - 1]
        assert one["probabilities"][named] == one["score"]


def test_pycocotools_reads_the_detections(exports: Exports, images: Path, capsys: Out) -> None:
    from pycocotools.coco import COCO

    found = predict(exports.model, images)
    coco = COCO()
    coco.dataset = {name: found[name] for name in ("info", "images", "categories")} | {"annotations": []}
    coco.createIndex()
    assert len(coco.loadRes(found["annotations"]).anns) == len(found["annotations"]) > 0


def test_a_runtime_that_cannot_run_an_export_is_refused_in_one_line(
    exports: Exports, images: Path, capsys: Out
) -> None:
    words = ["predict", exports.openvino, "--images", images, "--json", "x.json", "--runtime", "onnxruntime"]
    assert cli.run([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert "which onnxruntime cannot run. Export it with --format onnx" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("export_format", "runtime"), [("onnx", "onnxruntime"), ("onnx", "openvino"), ("openvino", "openvino")]
)
def test_every_runtime_gives_the_same_detections(
    exports: Exports, images: Path, export_format: str, runtime: str, capsys: Out
) -> None:
    folder: Path = getattr(exports, export_format)
    ours = predict(exports.model, images, "--precision", "fp32", "--min-score", "0.2")
    theirs = predict(folder, images, "--runtime", runtime, "--min-score", "0.2", "--batch", "2")
    assert theirs["info"] == ours["info"] | {"runtime": runtime}
    assert len(ours["annotations"]) == len(theirs["annotations"]) > 0
    for one, other in zip(ours["annotations"], theirs["annotations"], strict=True):
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.01)
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)
    for one, other in zip(ours["images"], theirs["images"], strict=True):
        assert one["routing"]["experts"] == other["routing"]["experts"]


def test_a_class_book_says_what_to_look_for(exports: Exports, images: Path) -> None:
    book = images.parent / "classes.yaml"
    book.write_text("classes:\n- {name: torn, description: a torn edge}\n")
    found = predict(exports.onnx, images, "--class-book", book)
    assert [c["name"] for c in found["categories"]] == ["torn"]
    assert {tuple(one["probabilities"]) for one in found["annotations"]} == {("torn",)}


def export(exports: Exports, *words: str | Path) -> int:
    with exports.traced():
        return cli.run(["export", *map(str, words)])


def test_an_export_takes_the_place_of_an_earlier_one(exports: Exports, tmp_path: Path, capsys: Out) -> None:
    out = tmp_path / "line"
    assert export(exports, exports.model, "--format", "onnx", "--out", out) == 0
    assert "against PyTorch in fp32: logits within" in capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert names == {"export.json", "text.safetensors", "model.onnx"}
    assert export(exports, exports.model, "--format", "openvino", "--precision", "bf16", "--out", out) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {"export.json", "text.safetensors", "model.xml", "model.bin"}
    assert [path.name for path in tmp_path.iterdir()] == ["line"]


def test_a_failed_export_leaves_the_earlier_one(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    out = tmp_path / "line"
    shutil.copytree(exports.onnx, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr("dsmoe_core.export._difference", lambda *_: 1 / 0)
    assert export(exports, exports.model, "--format", "openvino", "--out", out) == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["line"]


def test_what_is_no_export_is_not_replaced(exports: Exports, tmp_path: Path, capsys: Out) -> None:
    (tmp_path / "thesis.tex").touch()
    assert export(exports, exports.model, "--format", "onnx", "--out", tmp_path) == 2
    assert "thesis.tex, which would be lost" in capsys.readouterr().err


def test_int8_needs_images(exports: Exports, tmp_path: Path, capsys: Out) -> None:
    words = (exports.model, "--format", "openvino", "--precision", "int8", "--out", tmp_path / "out")
    assert export(exports, *words) == 2
    assert "Give a folder of them with --calibration" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert export(exports, *words, "--calibration", tmp_path / "empty") == 2
    assert "has no image that can be read" in capsys.readouterr().err


@pytest.mark.slow
def test_int8_is_calibrated_and_predicts(exports: Exports, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "eight"
    words = ("--format", "openvino", "--precision", "int8", "--calibration", images, "--out", out)
    assert export(exports, exports.model, *words) == 0
    found = predict(out, images)
    assert found["info"]["precision"] == "int8"
    assert found["annotations"]


def test_a_model_is_named_by_its_workspace(
    exports: Exports, workspace: Workspace, images: Path, capsys: Out
) -> None:
    registry: Registry = workspace.registry
    shutil.copytree(exports.model, registry.folder("r0-1"))
    card = new_card("r0-1", number=0, parent=None, dataset_version="d", class_book="b", training={})
    registry.register(card)
    registry.promote("r0-1", "the first")
    found = predict("champion", images, "--workspace", workspace.path)
    assert {c["name"] for c in found["categories"]} == set(COLOURS)  # the workspace's book is what it reads
    assert (
        cli.run(["predict", "r9", "--images", str(images), "--json", "x", "--workspace", str(workspace.path)])
        == 2
    )
    assert "model 'r9' is not in" in capsys.readouterr().err


def test_an_export_can_be_judged(exports: Exports, blocks: Path, tmp_path: Path) -> None:
    book = tmp_path / "classes.yaml"
    book.write_text(
        "classes:\n" + "".join(f"- {{name: {name}, description: a {name}}}\n" for name in COLOURS)
    )
    words = ["evaluate", exports.onnx, "--annotations", blocks / "val.json", "--images", blocks / "images"]
    words += ["--class-book", book, "--json", tmp_path / "out.json", "--resamples", "100"]
    assert cli.run([str(word) for word in words]) == 0
    assert 0 <= json.loads((tmp_path / "out.json").read_text())["total"]["map"] <= 1
