"""What runs a folder, and what is said of a folder or a wish that cannot be run."""

from __future__ import annotations

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
    """A copy to break."""
    return lambda folder: shutil.copytree(folder, tmp_path / folder.name)


def test_a_folder_is_run_by_what_it_was_made_for(exports: Exports) -> None:
    opened = [
        load_inference_model(f, RuntimeOptions()) for f in (exports.model, exports.onnx, exports.openvino)
    ]
    assert [o.runtime.name for o in opened] == ["eager", "onnxruntime", "openvino"]
    assert [o.runtime.precision for o in opened] == ["bf16", "fp32", "fp32"]
    assert len({o.version for o in opened}) == 1  # the same weights
    assert {training_vocabulary(o.folder) for o in opened} == {VOCABULARY}


@pytest.mark.parametrize(("kind", "weights"), [("model", "model.safetensors"), ("onnx", "text.safetensors")])
def test_what_a_folder_was_trained_on_is_read_from_its_card(
    exports: Exports, copied: Callable[[Path], Path], kind: str, weights: str
) -> None:
    folder = copied(getattr(exports, kind))
    (folder / weights).unlink()
    assert training_vocabulary(folder) == VOCABULARY


@pytest.mark.parametrize(
    ("folder", "how", "complaint"),
    [
        ("model", RuntimeOptions("openvino"), "is no exported model, which openvino needs"),
        ("model", RuntimeOptions(precision="int8"), "PyTorch does not run int8"),
        (
            "openvino",
            RuntimeOptions("onnxruntime"),
            "holds an exported openvino graph, which onnxruntime cannot run",
        ),
        ("onnx", RuntimeOptions("eager"), "holds an exported onnx graph, which eager cannot run"),
        (
            "openvino",
            RuntimeOptions(precision="int8"),
            "was exported for fp32; int8 needs an export of its own",
        ),
        ("onnx", RuntimeOptions(precision="bf16"), "ONNX Runtime computes in fp32 here, not bf16"),
    ],
)
def test_what_cannot_run_a_folder_is_refused(
    exports: Exports, folder: str, how: RuntimeOptions, complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        load_inference_model(getattr(exports, folder), how)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_is_named(
    exports: Exports, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsmoe_core.runtimes.onnx.providers", lambda: ["cpu"])
    with pytest.raises(PrerequisiteError, match=r"has no (CUDA|Tensorrt)ExecutionProvider"):
        load_inference_model(exports.onnx, RuntimeOptions(provider=provider))


def test_a_gpu_that_onnx_runtime_was_built_for_and_cannot_use_leaves_the_processor(
    exports: Exports, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dsmoe_core.runtimes.onnx.providers", lambda: ["cpu", "cuda", "tensorrt"])
    answer = load_inference_model(exports.onnx, RuntimeOptions()).runtime.run(
        sample_images(1), sample_texts(3), sample_texts(2)
    )
    assert answer.logits.isfinite().all()
    assert "ONNX Runtime computes on the processor" in caplog.text


def test_a_processor_without_bf16_is_not_asked_for_it(
    exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "has_bf16", lambda: False)
    with pytest.raises(PrerequisiteError, match="this processor cannot compute in bf16"):
        load_inference_model(exports.openvino, RuntimeOptions(precision="bf16"))


def tear(name: str) -> Callable[[Path], None]:
    def torn(folder: Path) -> None:
        half = (folder / name).read_bytes()
        (folder / name).write_bytes(half[: len(half) // 2])

    return torn


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("export_format", "harm", "complaint"),
    [
        ("onnx", tear("export.json"), "holds no whole exported model"),
        ("onnx", lose("export.json"), "holds no whole model"),
        ("onnx", tear("text.safetensors"), "cannot be read as safetensors"),
        ("onnx", lose("text.safetensors"), "cannot be read as safetensors"),
        ("onnx", tear("model.onnx"), "cannot be run"),
        ("onnx", lose("model.onnx"), "cannot be run"),
        ("openvino", tear("model.xml"), "cannot be run"),
        ("openvino", lose("model.xml"), "cannot be run"),
        ("openvino", tear("model.bin"), "cannot be run"),
        ("openvino", lose("model.bin"), "cannot be run"),
    ],
)
def test_a_damaged_export_is_said_to_be_one(
    exports: Exports,
    copied: Callable[[Path], Path],
    export_format: str,
    harm: Callable[[Path], None],
    complaint: str,
) -> None:
    folder = copied(getattr(exports, export_format))
    harm(folder)
    with pytest.raises(ModelError, match=complaint) as raised:
        load_inference_model(folder, RuntimeOptions())
    assert len(str(raised.value).splitlines()) == 1


def test_weights_of_another_text_path_are_refused(exports: Exports, copied: Callable[[Path], Path]) -> None:
    folder = copied(exports.onnx)
    shutil.copy(exports.model / "model.safetensors", folder / "text.safetensors")
    with pytest.raises(ModelError, match="do not fit the network"):
        load_inference_model(folder, RuntimeOptions())


@pytest.mark.parametrize(
    ("package", "export_format"),
    [("onnxruntime", "onnx"), ("openvino", "openvino")],
    ids=["onnx", "openvino"],
)
def test_a_missing_package_is_named_with_its_extra(
    exports: Exports, monkeypatch: pytest.MonkeyPatch, package: str, export_format: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PrerequisiteError, match=f"{package} is missing.*pip install 'dsmoe.export.'"):
        load_inference_model(getattr(exports, export_format), RuntimeOptions())


class Another(HashEncoder):
    """As wide, and another one."""

    name = "another"


def test_classes_of_the_training_need_no_text_encoder(exports: Exports) -> None:
    encoder = Another()
    Detector.load(exports.onnx, encoder).set_vocabulary(VOCABULARY)
    assert encoder.encoded_texts == []


def test_a_new_class_is_read_by_the_encoder_of_the_training_alone(exports: Exports) -> None:
    book = Vocabulary((*VOCABULARY.classes, ClassText("torn", "a torn edge")))
    encoder = HashEncoder()
    Detector.load(exports.onnx, encoder).set_vocabulary(book)
    assert encoder.encoded_texts == ["a torn edge"]
    with pytest.raises(ModelError, match="trained with text encoder hash; this one is another"):
        Detector.load(exports.onnx, Another()).set_vocabulary(book)
    with pytest.raises(DsmoeError, match="trained with text encoder hash; this one is another"):
        Detector.load(exports.model, Another())
