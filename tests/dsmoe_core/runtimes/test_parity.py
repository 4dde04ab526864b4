"""Every runtime answers as eager PyTorch does, whatever the batch, the classes and the experts chosen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from exports import Exports, sample_images, sample_texts
from tiny import HashEncoder

from dsmoe_core.predict import Detector
from dsmoe_core.runtimes.loading import RuntimeOptions, load_inference_model
from dsmoe_core.runtimes.openvino import has_bf16
from dsmoe_core.runtimes.protocol import Runtime, RuntimeOutput
from dsmoe_core.schema import ClassText, LabelledImage, Prediction, Vocabulary

NAMES = ("onnx", "openvino", "onnx by openvino")


@pytest.fixture(scope="module", params=NAMES)
def runtime(request: pytest.FixtureRequest, exports: Exports) -> Runtime:
    folder = exports.openvino if request.param == "openvino" else exports.onnx
    how = RuntimeOptions("openvino") if "by" in request.param else RuntimeOptions()
    return load_inference_model(folder, how).runtime


@pytest.fixture(scope="module")
def eager(exports: Exports) -> Runtime:
    return load_inference_model(exports.model, RuntimeOptions(precision="fp32")).runtime


def largest_difference(one: RuntimeOutput, other: RuntimeOutput) -> float:
    assert one.routing is not None
    assert other.routing is not None
    assert one.routing.experts.tolist() == other.routing.experts.tolist()
    pairs = [*zip(one[:2], other[:2], strict=True), *zip(one.routing[1:], other.routing[1:], strict=True)]
    pairs = [(a.cpu(), b.cpu()) for a, b in pairs]  # eager PyTorch takes a GPU where there is one
    assert all(a.shape == b.shape for a, b in pairs)
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("batch", [1, 3, 4])
@pytest.mark.parametrize(("conditioning", "asked"), [(3, 2), (3, 5), (5, 1), (1, 3)])
def test_a_graph_answers_as_pytorch_does(
    runtime: Runtime, eager: Runtime, batch: int, conditioning: int, asked: int
) -> None:
    words = sample_texts(conditioning), sample_texts(asked, seed=1)
    answer = runtime.run(sample_images(batch), *words)
    assert answer.logits.shape == (batch, 80, asked)
    assert largest_difference(answer, eager.run(sample_images(batch), *words)) < 1e-4


def test_the_images_choose_different_experts(eager: Runtime) -> None:
    """Else the tests above would show less than they say."""
    chosen = eager.run(sample_images(4), sample_texts(3), sample_texts(3)).routing
    assert chosen is not None
    kinds = {(choice < 2).sum().item() for choice in chosen.experts}
    assert kinds == {0, 1, 2}  # cross-modal experts only, one of each, task experts only


def test_a_image_s_answer_does_not_hang_on_its_batch(runtime: Runtime) -> None:
    words = sample_texts(3), sample_texts(3)
    together = runtime.run(sample_images(4), *words)
    for i in range(4):
        alone = runtime.run(sample_images(4)[i : i + 1], *words)
        assert (together.logits[i] - alone.logits[0]).abs().max() < 1e-4


@pytest.mark.skipif(not has_bf16(), reason="this processor has no bf16")
def test_bf16_is_near_and_really_another_precision(exports: Exports, eager: Runtime) -> None:
    words = sample_texts(3), sample_texts(2, seed=1)
    exact, half = (
        r.run(sample_images(1), *words).logits.sigmoid().cpu()
        for r in (eager, load_inference_model(exports.openvino, RuntimeOptions(precision="bf16")).runtime)
    )
    assert 1e-6 < (exact - half).abs().mean() < 0.02


COMPILED = """
from exports import sample_images, sample_texts, diverse_network
from dsmoe_core.runtimes.eager import EagerRuntime
network, words = diverse_network(), (sample_texts(3), sample_texts(2, seed=1))
images = sample_images(4)
eager, compiled = (EagerRuntime(network, "fp32", compiled=c).run(images, *words) for c in (False, True))
assert eager.routing.experts.equal(compiled.routing.experts)
print("DIFFERENCE", float((eager.logits - compiled.logits).abs().max()))
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a compiler")
def test_torch_compile_makes_one_graph_that_answers_as_eager_does() -> None:
    """In a process of its own, as it cannot look through the checks of shapes that tests run under."""
    root = Path(__file__).resolve().parents[3]
    paths = os.pathsep.join((str(root), str(root / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout.rpartition("DIFFERENCE ")[2]) < 1e-4


def run(
    folder: Path, how: RuntimeOptions, images: list[LabelledImage], vocabulary: Vocabulary
) -> list[Prediction]:
    detector = Detector.load(folder, HashEncoder(), how)
    detector.set_vocabulary(vocabulary)
    return list(detector.predict(p.image for p in images))


@pytest.mark.parametrize("name", NAMES)
def test_the_detections_are_the_same_for_classes_old_and_new(
    exports: Exports, images: list[LabelledImage], vocabulary: Vocabulary, name: str
) -> None:
    book = Vocabulary((*vocabulary.classes, ClassText("torn", "a torn edge")), vocabulary.inner, "v2")
    folder = exports.openvino if name == "openvino" else exports.onnx
    how = RuntimeOptions("openvino") if "by" in name else RuntimeOptions()
    ours = run(exports.model, RuntimeOptions(precision="fp32"), images, book)
    theirs = run(folder, how, images, book)
    for one, other in zip(ours, theirs, strict=True):
        assert len(one.detections) == len(other.detections) > 0
        assert one.version == other.version
        assert one.routing.experts == other.routing.experts
        for a, b in zip(one.detections, other.detections, strict=True):
            assert a.label == b.label
            assert a.box.corners == pytest.approx(b.box.corners, abs=0.01)
            assert dict(a.probabilities) == pytest.approx(dict(b.probabilities), abs=1e-4)
