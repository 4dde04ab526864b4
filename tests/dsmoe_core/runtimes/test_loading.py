"""Loading of model and export folders: defaults, refused options, damaged files, text encoders."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from exports import VOCABULARY, Exports, sample_images, sample_texts
from tiny import HashEncoder

from dsmoe_core.errors import DsmoeError, ModelError, PrerequisiteError, SettingsError
from dsmoe_core.predict import Detector
from dsmoe_core.runtimes import openvino
from dsmoe_core.runtimes.loading import RuntimeOptions, load_inference_model, training_vocabulary
from dsmoe_core.schema import ClassText, Vocabulary


@pytest.fixture
def copied(exports: Exports, tmp_path: Path) -> Callable[[Path], Path]:
    """Makes a copy of a folder that the test may damage."""
    return lambda folder: shutil.copytree(folder, tmp_path / folder.name)


def test_default_runtime_is_that_of_the_folder(exports: Exports) -> None:
    loaded = [
        load_inference_model(f, RuntimeOptions()) for f in (exports.model, exports.onnx, exports.openvino)
    ]
    assert [o.runtime.name for o in loaded] == ["eager", "onnxruntime", "openvino"]
    assert [o.runtime.precision for o in loaded] == ["bf16", "fp32", "fp32"]
    assert len({o.version for o in loaded}) == 1  # the same weights
    assert {training_vocabulary(o.folder) for o in loaded} == {VOCABULARY}


@pytest.mark.parametrize(("kind", "weights"), [("model", "model.safetensors"), ("onnx", "text.safetensors")])
def test_training_vocabulary_needs_the_card_only(
    exports: Exports, copied: Callable[[Path], Path], kind: str, weights: str
) -> None:
    folder = copied(getattr(exports, kind))
    (folder / weights).unlink()
    assert training_vocabulary(folder) == VOCABULARY


@pytest.mark.parametrize(
    ("folder", "options", "value"),
    [
        ("model", RuntimeOptions("openvino"), "openvino"),
        ("model", RuntimeOptions(precision="int8"), "int8"),
        (
            "openvino",
            RuntimeOptions("onnxruntime"),
            "onnxruntime",
        ),
        ("onnx", RuntimeOptions("eager"), "eager"),
        (
            "openvino",
            RuntimeOptions(precision="int8"),
            "int8",
        ),
        ("onnx", RuntimeOptions(precision="bf16"), "bf16"),
    ],
)
def test_options_that_do_not_fit_the_folder_are_refused(
    exports: Exports, folder: str, options: RuntimeOptions, value: str
) -> None:
    with pytest.raises(SettingsError, match=value):
        load_inference_model(getattr(exports, folder), options)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_missing_provider_is_refused(
    exports: Exports, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsmoe_core.runtimes.onnx.providers", lambda: ["cpu"])
    with pytest.raises(PrerequisiteError, match=r"(CUDA|Tensorrt)ExecutionProvider"):
        load_inference_model(exports.onnx, RuntimeOptions(provider=provider))


def test_auto_provider_falls_back_to_the_cpu(
    exports: Exports, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dsmoe_core.runtimes.onnx.providers", lambda: ["cpu", "cuda", "tensorrt"])
    output = load_inference_model(exports.onnx, RuntimeOptions()).runtime.run(
        sample_images(1), sample_texts(3), sample_texts(2)
    )
    assert output.logits.isfinite().all()
    assert "CUDAExecutionProvider" in caplog.text


def test_bf16_is_refused_on_a_cpu_without_it(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "has_bf16", lambda: False)
    with pytest.raises(PrerequisiteError, match="bf16"):
        load_inference_model(exports.openvino, RuntimeOptions(precision="bf16"))


def truncate(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("export_format", "damage", "value"),
    [
        ("onnx", truncate("export.json"), "onnx"),
        ("onnx", remove("export.json"), "onnx"),
        ("onnx", truncate("text.safetensors"), r"text\.safetensors"),
        ("onnx", remove("text.safetensors"), r"text\.safetensors"),
        ("onnx", truncate("model.onnx"), r"model\.onnx"),
        ("onnx", remove("model.onnx"), r"model\.onnx"),
        ("openvino", truncate("model.xml"), r"model\.xml"),
        ("openvino", remove("model.xml"), r"model\.xml"),
        ("openvino", truncate("model.bin"), r"model\.xml"),
        ("openvino", remove("model.bin"), r"model\.xml"),
    ],
)
def test_damaged_export_is_refused_in_one_line(
    exports: Exports,
    copied: Callable[[Path], Path],
    export_format: str,
    damage: Callable[[Path], None],
    value: str,
) -> None:
    folder = copied(getattr(exports, export_format))
    damage(folder)
    with pytest.raises(ModelError, match=value) as raised:
        load_inference_model(folder, RuntimeOptions())
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("names", [(), ("vectors", "experts", "weights", "probabilities")])
def test_export_with_the_outputs_of_another_version_is_refused(
    exports: Exports, copied: Callable[[Path], Path], names: tuple[str, ...]
) -> None:
    folder = copied(exports.onnx)
    card = json.loads((folder / "export.json").read_text())
    card["outputs"] = {name: [] for name in ("logits", "boxes", *(names and ("features", *names)))}
    (folder / "export.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="features, experts"):
        load_inference_model(folder, RuntimeOptions())


def test_weights_of_another_class_encoder_are_refused(
    exports: Exports, copied: Callable[[Path], Path]
) -> None:
    folder = copied(exports.onnx)
    shutil.copy(exports.model / "model.safetensors", folder / "text.safetensors")
    with pytest.raises(ModelError, match=r"text\.safetensors"):
        load_inference_model(folder, RuntimeOptions())


@pytest.mark.parametrize(
    ("package", "export_format"),
    [("onnxruntime", "onnx"), ("openvino", "openvino")],
    ids=["onnx", "openvino"],
)
def test_missing_package_is_named_with_its_extra(
    exports: Exports, monkeypatch: pytest.MonkeyPatch, package: str, export_format: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PrerequisiteError, match=f"{package}.*dsmoe.export"):
        load_inference_model(getattr(exports, export_format), RuntimeOptions())


class OtherEncoder(HashEncoder):
    """An encoder of the same width with another name."""

    name = "another"


def test_training_classes_need_no_text_encoder(exports: Exports) -> None:
    encoder = OtherEncoder()
    Detector.load(exports.onnx, encoder).set_vocabulary(VOCABULARY)
    assert encoder.encoded_texts == []


def test_new_class_needs_the_text_encoder_of_the_training(exports: Exports) -> None:
    book = Vocabulary((*VOCABULARY.classes, ClassText("torn", "a torn edge")))
    encoder = HashEncoder()
    Detector.load(exports.onnx, encoder).set_vocabulary(book)
    assert encoder.encoded_texts == ["a torn edge"]
    with pytest.raises(ModelError, match=r"hash.* another"):
        Detector.load(exports.onnx, OtherEncoder()).set_vocabulary(book)
    with pytest.raises(DsmoeError, match=r"hash.* another"):
        Detector.load(exports.model, OtherEncoder())
