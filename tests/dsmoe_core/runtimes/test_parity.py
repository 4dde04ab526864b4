"""Every runtime has the output of eager PyTorch, for all batch sizes, numbers of classes and experts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import openvino
import pytest
import torch
from exports import Exports, sample_images, sample_texts
from tiny import HashEncoder
from torch import Tensor, nn

from dsmoe_core.predict import Detector
from dsmoe_core.runtimes.loading import RuntimeOptions, load_inference_model
from dsmoe_core.runtimes.openvino import has_bf16
from dsmoe_core.runtimes.protocol import Runtime, RuntimeOutput
from dsmoe_core.schema import ClassText, LabelledImage, Prediction, Vocabulary
from dsmoe_core.stages.alignment import HyperbolicAlignment

NAMES = ("onnx", "openvino", "onnx by openvino")


@pytest.fixture(scope="module", params=NAMES)
def runtime(request: pytest.FixtureRequest, exports: Exports) -> Runtime:
    folder = exports.openvino if request.param == "openvino" else exports.onnx
    options = RuntimeOptions("openvino") if "by" in request.param else RuntimeOptions()
    return load_inference_model(folder, options).runtime


@pytest.fixture(scope="module")
def eager(exports: Exports) -> Runtime:
    return load_inference_model(exports.model, RuntimeOptions(precision="fp32")).runtime


def largest_difference(first: RuntimeOutput, second: RuntimeOutput) -> float:
    assert first.routing is not None
    assert second.routing is not None
    assert first.routing.experts.tolist() == second.routing.experts.tolist()
    pairs = [
        *zip(first[:3], second[:3], strict=True),
        *zip(first.routing[1:], second.routing[1:], strict=True),
    ]
    pairs = [(a.cpu(), b.cpu()) for a, b in pairs]  # eager PyTorch uses a GPU if there is one
    assert all(a.shape == b.shape for a, b in pairs)
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("batch", [1, 3, 4])
@pytest.mark.parametrize(("conditioning", "scored"), [(3, 2), (3, 5), (5, 1), (1, 3)])
def test_exported_graph_has_the_output_of_pytorch(
    runtime: Runtime, eager: Runtime, batch: int, conditioning: int, scored: int
) -> None:
    texts = sample_texts(conditioning), sample_texts(scored, seed=1)
    output = runtime.run(sample_images(batch), *texts)
    assert output.logits.shape == (batch, 80, scored)
    assert largest_difference(output, eager.run(sample_images(batch), *texts)) < 1e-4


def test_sample_images_use_different_experts(eager: Runtime) -> None:
    """A precondition of the other tests."""
    routing = eager.run(sample_images(4), sample_texts(3), sample_texts(3)).routing
    assert routing is not None
    kinds = set((routing.experts < 2).sum(1).flatten().tolist())
    assert kinds == {0, 1, 2}  # only cross-modal experts, one of each kind, only task experts


def test_output_does_not_depend_on_the_batch(runtime: Runtime) -> None:
    texts = sample_texts(3), sample_texts(3)
    batched = runtime.run(sample_images(4), *texts)
    for i in range(4):
        single = runtime.run(sample_images(4)[i : i + 1], *texts)
        assert (batched.logits[i] - single.logits[0]).abs().max() < 1e-4


@pytest.mark.skipif(not has_bf16(), reason="this processor has no bf16")
def test_bf16_is_close_to_fp32_but_not_equal(exports: Exports, eager: Runtime) -> None:
    texts = sample_texts(3), sample_texts(2, seed=1)
    fp32, bf16 = (
        r.run(sample_images(1), *texts).logits.sigmoid().cpu()
        for r in (eager, load_inference_model(exports.openvino, RuntimeOptions(precision="bf16")).runtime)
    )
    assert 1e-6 < (fp32 - bf16).abs().mean() < 0.02


class _FusedAtTheBoundary(nn.Module):
    """Stage 5 with points at the boundary, and a product, before which OpenVINO uses bf16."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.alignment = HyperbolicAlignment(width=16, text_width=16, ball_dim=8)
        self.product = nn.Linear(8, 8)
        with torch.no_grad():
            self.alignment.value.weight.mul_(100)
            self.alignment.anchor.weight.mul_(100)

    def forward(self, f_cs: Tensor, text: Tensor) -> Tensor:
        output: Tensor = self.product(self.alignment(f_cs, text).fused)
        return output


@pytest.mark.skipif(not has_bf16(), reason="this processor has no bf16")
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of OpenVINO's import of torch graphs
def test_bf16_is_finite_at_the_boundary_of_the_ball() -> None:
    """OpenVINO rounds 1 - 1e-5 to 1 in bf16."""
    network = _FusedAtTheBoundary().eval()
    inputs = (torch.randn(1, 16, 8, 8), torch.randn(3, 16))
    graph = openvino.convert_model(torch.export.export(network, inputs))
    hints = {"INFERENCE_PRECISION_HINT": "bf16"}
    compiled = openvino.Core().compile_model(graph, "CPU", hints)
    expected = network(*inputs).detach()
    bf16 = torch.from_numpy(compiled([v.numpy() for v in inputs])[0])
    assert 1e-6 < (bf16 - expected).abs().mean() < expected.abs().mean()


COMPILED = """
from exports import sample_images, sample_texts, diverse_network
from dsmoe_core.runtimes.eager import EagerRuntime
network, texts = diverse_network(), (sample_texts(3), sample_texts(2, seed=1))
images = sample_images(4)
eager, compiled = (EagerRuntime(network, "fp32", compiled=c).run(images, *texts) for c in (False, True))
assert eager.routing.experts.equal(compiled.routing.experts)
print("DIFFERENCE", float((eager.logits - compiled.logits).abs().max()))
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a compiler")
def test_compiled_network_has_the_output_of_the_eager_one() -> None:
    """In another process, because torch.compile cannot trace the shape checks of the test run."""
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


def predict(
    folder: Path, options: RuntimeOptions, images: list[LabelledImage], vocabulary: Vocabulary
) -> list[Prediction]:
    detector = Detector.load(folder, HashEncoder(), options)
    detector.set_vocabulary(vocabulary)
    return list(detector.predict(p.image for p in images))


@pytest.mark.parametrize("name", NAMES)
def test_detections_are_equal_for_training_and_new_classes(
    exports: Exports, images: list[LabelledImage], vocabulary: Vocabulary, name: str
) -> None:
    book = Vocabulary((*vocabulary.classes, ClassText("torn", "a torn edge")), vocabulary.inner, "v2")
    folder = exports.openvino if name == "openvino" else exports.onnx
    options = RuntimeOptions("openvino") if "by" in name else RuntimeOptions()
    expected = predict(exports.model, RuntimeOptions(precision="fp32"), images, book)
    actual = predict(folder, options, images, book)
    for first, second in zip(expected, actual, strict=True):
        assert len(first.detections) == len(second.detections) > 0
        assert first.version == second.version
        assert first.routing.experts == second.routing.experts
        for a, b in zip(first.detections, second.detections, strict=True):
            assert a.label == b.label
            assert a.box.corners == pytest.approx(b.box.corners, abs=0.01)
            assert dict(a.probabilities) == pytest.approx(dict(b.probabilities), abs=1e-4)
