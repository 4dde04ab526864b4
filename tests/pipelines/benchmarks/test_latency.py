"""The benchmark of runtimes: timing, result rows and the agreement of detections."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import Exports, diverse_network, sample_texts
from tiny import SMALL, HashEncoder

from dsmoe_core.errors import PrerequisiteError
from dsmoe_core.network import ClassEncoding
from dsmoe_core.runtimes.openvino import has_bf16
from dsmoe_core.runtimes.protocol import RuntimeOutput
from dsmoe_core.schema import Box, Detection, Prediction, Routing
from pipelines.benchmarks import latency
from pipelines.benchmarks.latency import EncoderTimer, latency_rows, measure_latency, time_runtimes
from pipelines.benchmarks.parity import agreement, measure_parity
from pipelines.benchmarks.runtimes import DeviceRuntime, available_runtimes, eager_runtimes, random_images
from pipelines.cli.benchmark import DeviceChoice, batches_by_device
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.evaluation.report.evaluated_model import load_evaluated_model
from pipelines.settings.environment import Environment
from tests.pipelines.blocks import COLOURS


class FakeRuntime:
    """A runtime that records the sizes of its batches; larger ones than ``max_batch`` do not fit."""

    precision = "fp32"

    def __init__(self, name: str, max_batch: int = 99) -> None:
        self.name = name
        self.max_batch = max_batch
        self.batches: list[int] = []

    def run(self, squares: torch.Tensor, conditioning: torch.Tensor, classes: torch.Tensor) -> RuntimeOutput:
        if len(squares) > self.max_batch:
            raise torch.OutOfMemoryError
        self.batches.append(len(squares))
        return RuntimeOutput(torch.zeros(1, 1, 1), torch.zeros(1, 1, 4), torch.zeros(1, 1, 1, 1), None)


def timed(batch: int, *fakes: FakeRuntime, rounds: int = 2) -> dict[str, list[float]]:
    one = torch.zeros(1, 16)
    times = time_runtimes(
        [DeviceRuntime("cpu", fake) for fake in fakes],
        ClassEncoding(one, one, one, one.sum()),
        lambda number: random_images(batch, 32, seed=number),
        rounds,
        {},
        iter,
    )
    return {timed.runtime.name: ms for timed, ms in times.items()}


def test_every_runtime_is_timed_in_every_round_after_the_warm_up() -> None:
    fakes = FakeRuntime("one"), FakeRuntime("two")
    times = timed(2, *fakes, rounds=4)
    assert {name: len(ms) for name, ms in times.items()} == {"one": 4, "two": 4}
    assert all(fake.batches == [2] * (latency.WARM_UP_ROUNDS["cpu"] + 4) for fake in fakes)


def test_runtime_without_memory_for_a_batch_is_left_out() -> None:
    small = FakeRuntime("small", max_batch=2)
    assert list(timed(4, FakeRuntime("large"), small)) == ["large"]
    assert small.batches == []


def test_rows_are_compared_with_eager_fp32_on_the_same_device() -> None:
    def runtime(device: str, name: str) -> DeviceRuntime:
        return DeviceRuntime(device, FakeRuntime(name))

    times = {
        runtime("cpu", "eager"): [10.0, 10.0, 10.0],
        runtime("cpu", "openvino"): [4.0, 2.0, 100.0],
        runtime("cuda", "eager"): [2.0, 2.0, 2.0],
        runtime("cuda", "tensorrt"): [1.0, 1.0, 1.0],
    }
    rows = latency_rows(times, 640, 8)
    assert [row["ms"] for row in rows] == [10.0, 4.0, 2.0, 1.0]
    assert [row["ratio_to_eager"] for row in rows] == [1.0, 0.4, 1.0, 0.5]
    assert [row["pictures_per_s"] for row in rows] == [800.0, 2000.0, 4000.0, 8000.0]
    assert rows[1]["ms_quartiles"][0] < rows[1]["ms"] < rows[1]["ms_quartiles"][1]


def test_encoder_timer_times_one_pass() -> None:
    network = torch.nn.Module()
    network.image_encoder = torch.nn.Identity()
    timer = EncoderTimer(network, "cpu")
    network.image_encoder(torch.zeros(1))
    timer.add_pass()
    assert len(timer.encoder_ms) == len(timer.after_encoder_ms) == 1
    assert 0 <= timer.encoder_ms[0] < 1000


@pytest.mark.parametrize("batch", [1, 2])
def test_encoder_times_are_recorded_for_single_images_after_the_warm_up(batch: int) -> None:
    network = torch.nn.Module()
    network.image_encoder = torch.nn.Identity()
    timer, one = EncoderTimer(network, "cpu"), torch.zeros(1, 16)
    runtimes = [DeviceRuntime("cpu", FakeRuntime(name)) for name in ("first", "second")]
    encoding = ClassEncoding(one, one, one, one.sum())
    time_runtimes(runtimes, encoding, lambda _: torch.zeros(batch, 32, 32, 3), 4, {runtimes[0]: timer}, iter)
    assert len(timer.encoder_ms) == (4 if batch == 1 else 0)


def prediction(*rows: tuple[float, str, float]) -> Prediction:
    detections = [
        Detection(Box(x, 0.0, x + 100.0, 100.0), label, score, {label: score}, 0.0)
        for x, label, score in rows
    ]
    return Prediction("p", tuple(detections), Routing((), (), 0.0), 0.0, "m+b")


@pytest.mark.parametrize(
    ("other", "matched", "worst_iou", "worst_score"),
    [
        ([(0.0, "a", 0.9), (200.0, "b", 0.5)], 1.0, 1.0, 0.0),
        ([(200.0, "b", 0.5), (0.0, "a", 0.9), (400.0, "a", 0.1)], 2 / 3, 1.0, 0.0),  # one more
        ([(200.0, "b", 0.5), (0.0, "a", 0.9), (400.0, "a", 0.045)], 1.0, 1.0, 0.0),  # one too low to compare
        ([(0.25, "a", 0.895), (200.0, "b", 0.5)], 1.0, 0.995, 0.005),
        ([(1.0, "a", 0.9), (200.0, "b", 0.5)], 0.5, 0.9802, 0.0),  # the box moved
        ([(0.0, "a", 0.88), (200.0, "b", 0.5)], 0.5, 1.0, 0.02),  # the score changed
        ([(0.0, "b", 0.9), (200.0, "b", 0.5)], 0.5, 1.0, 0.0),  # another class
        ([(0.0, "a", 0.9)], 0.5, 1.0, 0.0),  # one is missing
        ([], 0.0, 1.0, 0.0),
    ],
)
def test_agreement_of_detections(
    other: list[tuple[float, str, float]], matched: float, worst_iou: float, worst_score: float
) -> None:
    first = prediction((0.0, "a", 0.9), (200.0, "b", 0.5))
    second = prediction(*other)
    compared = agreement([first], [second])
    assert compared.matched == matched
    assert compared.worst_iou == pytest.approx(worst_iou, abs=1e-4)
    assert compared.worst_score == pytest.approx(worst_score)
    assert agreement([second], [first]) == compared


def test_counterpart_may_be_just_below_the_lowest_score() -> None:
    low, lower = prediction((0.0, "a", 0.051)), prediction((0.0, "a", 0.045))
    assert agreement([low], [lower]).matched == agreement([lower], [low]).matched == 1.0


def test_empty_predictions_agree() -> None:
    assert agreement([prediction()], [prediction()]).matched == 1.0


@pytest.mark.parametrize(
    ("device", "gpu", "batches"),
    [
        (DeviceChoice.ALL, True, {"cpu": [4], "cuda": [64]}),
        (DeviceChoice.ALL, False, {"cpu": [4]}),
        (DeviceChoice.CPU, True, {"cpu": [4]}),
        (DeviceChoice.CUDA, True, {"cuda": [64]}),
    ],
)
def test_each_device_has_its_own_batches(
    device: DeviceChoice, gpu: bool, batches: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert batches_by_device(device, [4], [64]) == batches


def test_missing_gpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PrerequisiteError):
        batches_by_device(DeviceChoice.CUDA, [4], [64])


def test_runtime_with_a_missing_package_is_left_out(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def import_package(package: str) -> Any:
        if package in ("openvino", "nncf"):
            raise PrerequisiteError(f"the package {package} is missing", "Install it.")
        return import_module(package)

    monkeypatch.setattr("pipelines.benchmarks.runtimes.import_package", import_package)
    monkeypatch.setattr("pipelines.benchmarks.runtimes.onnx_graph", lambda *_: exports.graph)
    encoding = ClassEncoding(sample_texts(3), sample_texts(3), sample_texts(1), torch.zeros(()))
    runtimes = available_runtimes(
        diverse_network(), SMALL, encoding, tmp_path, devices=["cpu"], compiled=False
    )
    assert [(one.runtime.name, one.runtime.precision) for one in runtimes.available] == [
        ("eager", "fp32"),
        ("eager", "bf16"),
        ("onnxruntime", "fp32"),
    ]
    missing = "the package openvino is missing"
    assert runtimes.left_out == {f"openvino, {p}, cpu": missing for p in ("fp32", "bf16", "int8")}


def test_network_that_cannot_be_compiled_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("skipping cudagraphs due to a copy\nand more")

    monkeypatch.setattr(torch, "compile", lambda graph, **options: fail)
    encoding = ClassEncoding(sample_texts(3), sample_texts(3), sample_texts(1), torch.zeros(()))
    runtimes = eager_runtimes(diverse_network(), SMALL, encoding, devices=["cpu"], compiled=True)
    assert [one.runtime.name for one in runtimes.available] == ["eager", "eager"]
    assert runtimes.left_out == {"compile, bf16, cpu": "skipping cudagraphs due to a copy"}


@pytest.mark.slow
def test_latency_of_a_small_network_on_every_runtime() -> None:
    measured = measure_latency(SMALL, rounds=2, batches={"cpu": [2]}, seed=1)
    names = [(row["runtime"], row["dtype"], row["batch"]) for row in measured["rows"]]
    expected = [("eager", "fp32"), ("eager", "bf16"), ("onnxruntime", "fp32"), ("openvino", "fp32")]
    expected += [("openvino", "bf16")] if has_bf16() else []
    expected += [("openvino", "int8")]
    assert [n for n in names if n[:2] in expected] == [(*n, batch) for batch in (1, 2) for n in expected]
    assert measured["gflops"] > 0
    assert measured["encoder_ms"] + measured["after_encoder_ms"] <= measured["rows"][0]["ms"] * 1.5


@pytest.mark.slow
def test_parity_of_every_runtime_on_the_same_images(
    exports: Exports, blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    model = load_evaluated_model(str(exports.model), None, None, Environment.read({}))
    model = replace(model, aliases=model.aliases | dict.fromkeys(COLOURS, "dark"))
    with exports.traced():
        parity = measure_parity(model, HashEncoder(), blocks, images=4, on_status=lambda _: None)
    rows = {(row["runtime"], row["dtype"]): row for row in parity["rows"]}
    assert parity["pictures"] == 4
    for name in (("eager", "fp32"), ("onnxruntime", "fp32"), ("openvino", "fp32")):
        assert rows[name]["matched"] == 1.0
        assert rows[name]["map50"] == rows[("eager", "fp32")]["map50"]
    assert rows[("openvino", "int8")]["findings"] > 0
