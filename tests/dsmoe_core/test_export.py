"""Export of models: card, comparison with PyTorch, and refused options."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from exports import VOCABULARY, Exports, diverse_network, sample_images, sample_texts
from PIL import Image
from tiny import SMALL, HashEncoder

from dsmoe_core.checkpoint import save_model
from dsmoe_core.errors import DataError, ModelError, PrerequisiteError, SettingsError
from dsmoe_core.export import export
from dsmoe_core.runtimes.exported import FILES, ExportCard
from dsmoe_core.runtimes.graph import OUTPUTS
from dsmoe_core.runtimes.loading import RuntimeOptions, load_inference_model
from dsmoe_core.schema import ImageRecord


@pytest.mark.parametrize("export_format", ["onnx", "openvino"])
def test_card_describes_the_export(exports: Exports, export_format: str) -> None:
    folder: Path = getattr(exports, export_format)
    card = ExportCard.model_validate(json.loads((folder / "export.json").read_text()))
    assert card.format == export_format
    assert card.config == SMALL
    assert card.text_encoder == "hash"
    assert card.inputs["classes"] == ("scored_classes", 16)
    assert list(card.outputs) == list(OUTPUTS)
    assert card.difference is not None
    logits, corners_px = card.difference
    assert logits < 1e-4
    assert corners_px < 1e-3
    assert export_format in card.tools
    assert {path.name for path in folder.iterdir()} <= set(FILES)
    assert all(path.stat().st_mode & 0o044 for path in folder.iterdir())  # readable for all users


def test_bf16_export_has_an_fp32_graph(exports: Exports, tmp_path: Path) -> None:
    with exports.traced():
        card = export(
            exports.model, tmp_path, export_format="openvino", precision="bf16", text_encoder=HashEncoder()
        )
    assert card.precision == "bf16"
    assert (tmp_path / "model.bin").stat().st_size == (exports.openvino / "model.bin").stat().st_size


def test_graph_with_other_output_is_refused(exports: Exports, tmp_path: Path) -> None:
    network = diverse_network()
    with torch.no_grad():
        network.head.levels[0].scale.add_(0.1)
    save_model(tmp_path / "model", network, SMALL, VOCABULARY, {})
    (tmp_path / "out").mkdir()
    with (
        exports.traced(),
        pytest.raises(ModelError),
    ):
        export(tmp_path / "model", tmp_path / "out", export_format="onnx", text_encoder=HashEncoder())
    assert not (tmp_path / "out" / "export.json").exists()


def test_impossible_options_are_refused_before_the_work(exports: Exports, tmp_path: Path) -> None:
    encoder = HashEncoder()
    with pytest.raises(SettingsError, match="int8"):
        export(exports.model, tmp_path, export_format="onnx", precision="int8", text_encoder=encoder)
    with pytest.raises(DataError, match="int8"):
        export(exports.model, tmp_path, export_format="openvino", precision="int8", text_encoder=encoder)
    encoder.width = 8
    with pytest.raises(ModelError, match=r"hash is 8 .* 16"):
        export(exports.model, tmp_path, export_format="onnx", text_encoder=encoder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "export_format", "precision"),
    [("onnxscript", "onnx", "fp32"), ("openvino", "openvino", "fp32"), ("nncf", "openvino", "int8")],
)
def test_missing_package_is_refused_before_the_work(
    exports: Exports,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    export_format: str,
    precision: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    image = ImageRecord("p", "p.png", tmp_path / "p.png", 64, 64)
    with pytest.raises(PrerequisiteError, match=package):
        export(
            exports.model,
            tmp_path,
            export_format=export_format,
            precision=precision,
            text_encoder=HashEncoder(),
            calibration=[image],
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_int8_runs_for_any_batch_and_number_of_classes(exports: Exports, tmp_path: Path) -> None:
    """The network here is not trained, so its accuracy says nothing.

    ``dsmoe benchmark latency --model`` measures that of a trained one.
    """
    images = []
    for i, square in enumerate(sample_images(4)):
        path = tmp_path / f"{i}.png"
        Image.fromarray(square.numpy()).save(path)
        images.append(ImageRecord(str(i), path.name, path, 64, 64))
    out = tmp_path / "out"
    out.mkdir()
    with exports.traced():
        card = export(
            exports.model,
            out,
            export_format="openvino",
            precision="int8",
            text_encoder=HashEncoder(),
            calibration=images,
        )
    assert card.difference is None
    assert "nncf" in card.tools
    assert (out / "model.bin").stat().st_size < (exports.openvino / "model.bin").stat().st_size
    int8, fp32 = (
        load_inference_model(out, RuntimeOptions()).runtime,
        load_inference_model(exports.model, RuntimeOptions(precision="fp32")).runtime,
    )
    assert int8.precision == "int8"
    for batch, conditioning, scored in ((1, 3, 2), (3, 2, 5), (4, 3, 1)):
        texts = sample_texts(conditioning), sample_texts(scored, seed=1)
        output = int8.run(sample_images(batch), *texts)
        assert output.logits.shape == (batch, 80, scored)
        assert output.boxes.shape == (batch, 80, 4)
        assert output.logits.isfinite().all()
        assert output.boxes.isfinite().all()
        difference = (output.logits - fp32.run(sample_images(batch), *texts).logits).abs()
        assert difference.mean() > 1e-4  # it was quantised
