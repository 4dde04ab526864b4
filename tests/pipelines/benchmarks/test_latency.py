"""The benchmark of runtimes: who runs, how times become rows, and what "the same detections" means."""

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
from pipelines.benchmarks import latency, parity
from pipelines.benchmarks.parity import agreement
from pipelines.benchmarks.results import write_result
from pipelines.benchmarks.runtimes import Contestant, contestants
from pipelines.benchmarks.tables import render
from pipelines.cli.benchmark import Where, _shown
from pipelines.detectors.backend import DSMoEBackend
from pipelines.evaluation.report.evaluated_model import load_evaluated_model
from pipelines.settings import Environment
from tests.pipelines.blocks import COLOURS


class Stub:
    """A runtime that counts; ``fits`` images at once, no more."""

    precision = "fp32"

    def __init__(self, name: str, fits: int = 99) -> None:
        self.name = name
        self.fits = fits
        self.looked: list[int] = []

    def run(self, squares: torch.Tensor, conditioning: torch.Tensor, classes: torch.Tensor) -> RuntimeOutput:
        if len(squares) > self.fits:
            raise torch.OutOfMemoryError
        self.looked.append(len(squares))
        return RuntimeOutput(torch.zeros(1, 1, 1), torch.zeros(1, 1, 4), None)


def timed(batch: int, *stubs: Stub, rounds: int = 2) -> dict[str, list[float]]:
    one = torch.zeros(1, 16)
    field = [Contestant("cpu", stub) for stub in stubs]
    network = torch.nn.Module()
    network.image_encoder = torch.nn.Identity()
    halves, shown = latency.Halves(network, "cpu"), latency._shown("cpu", batch, 32, 1)
    times = latency._time(
        field, field[0], halves, ClassEncoding(one, one, one, one.sum()), shown, rounds, iter
    )
    return {c.runtime.name: ms for c, ms in times.items()}


def test_everyone_is_timed_in_every_round_after_warming_up() -> None:
    stubs = Stub("one"), Stub("two")
    times = timed(2, *stubs, rounds=4)
    assert {name: len(ms) for name, ms in times.items()} == {"one": 4, "two": 4}
    assert all(s.looked == [2] * (latency.WARM_UP["cpu"] + 4) for s in stubs)


def test_whom_a_batch_is_too_large_for_is_left_out() -> None:
    small = Stub("small", fits=2)
    assert list(timed(4, Stub("large"), small)) == ["large"]
    assert small.looked == []


def test_a_row_is_compared_with_eager_fp32_on_its_device() -> None:
    def one(device: str, name: str) -> Contestant:
        return Contestant(device, Stub(name))

    times = {
        one("cpu", "eager"): [10.0, 10.0, 10.0],
        one("cpu", "openvino"): [4.0, 2.0, 100.0],
        one("cuda", "eager"): [2.0, 2.0, 2.0],
        one("cuda", "tensorrt"): [1.0, 1.0, 1.0],
    }
    rows = latency._rows(times, 640, 8)
    assert [row["ms"] for row in rows] == [10.0, 4.0, 2.0, 1.0]
    assert [row["ratio_to_eager"] for row in rows] == [1.0, 0.4, 1.0, 0.5]
    assert [row["pictures_per_s"] for row in rows] == [800.0, 2000.0, 4000.0, 8000.0]
    assert rows[1]["ms_quartiles"][0] < rows[1]["ms"] < rows[1]["ms_quartiles"][1]


def test_the_halves_are_those_of_one_pass() -> None:
    network = torch.nn.Module()
    network.image_encoder = torch.nn.Identity()
    halves = latency.Halves(network, "cpu")
    network.image_encoder(torch.zeros(1))
    halves.note()
    assert len(halves.encoder_ms) == len(halves.after_encoder_ms) == 1
    assert 0 <= halves.encoder_ms[0] < 1000


def found(*rows: tuple[float, str, float]) -> Prediction:
    detections = [
        Detection(Box(x, 0.0, x + 100.0, 100.0), label, score, {label: score}, 0.0)
        for x, label, score in rows
    ]
    return Prediction("p", tuple(detections), Routing((), (), 0.0), 0.0, "m+b")


@pytest.mark.parametrize(
    ("other", "matched", "worst_iou", "worst_score"),
    [
        ([(0.0, "a", 0.9), (200.0, "b", 0.5)], 1.0, 1.0, 0.0),
        ([(200.0, "b", 0.5), (0.0, "a", 0.9), (400.0, "a", 0.1)], 1.0, 1.0, 0.0),
        ([(0.25, "a", 0.895), (200.0, "b", 0.5)], 1.0, 0.995, 0.005),
        ([(1.0, "a", 0.9), (200.0, "b", 0.5)], 0.5, 0.9802, 0.0),  # the box moved
        ([(0.0, "a", 0.88), (200.0, "b", 0.5)], 0.5, 1.0, 0.02),  # the score did
        ([(0.0, "b", 0.9), (200.0, "b", 0.5)], 0.5, 1.0, 0.0),  # another class
        ([(0.0, "a", 0.9)], 0.5, 1.0, 0.0),  # one is missing
        ([], 0.0, 1.0, 0.0),
    ],
)
def test_what_counts_as_the_same(
    other: list[tuple[float, str, float]], matched: float, worst_iou: float, worst_score: float
) -> None:
    ours = found((0.0, "a", 0.9), (200.0, "b", 0.5))
    compared = agreement([ours], [found(*other)])
    assert compared.matched == matched
    assert compared.worst_iou == pytest.approx(worst_iou, abs=1e-4)
    assert compared.worst_score == pytest.approx(worst_score)


def test_nothing_agrees_with_nothing() -> None:
    assert agreement([found()], [found()]).matched == 1.0


ROW = {"device": "cpu", "image_px": 640, "ms_quartiles": [1, 3], "ratio_to_eager": 1.0}
MEASURED: dict[str, Any] = {
    "size": "base",
    "image_px": 640,
    "threads": 2,
    "rounds": 20,
    "encoder_ms": 200.0,
    "after_encoder_ms": 80.0,
    "rows": [
        {**ROW, "runtime": "eager", "dtype": "fp32", "batch": 1, "ms": 280, "pictures_per_s": 3.6},
        {**ROW, "runtime": "eager", "dtype": "fp32", "batch": 4, "ms": 800, "pictures_per_s": 5.0},
    ],
}
FOUND: dict[str, Any] = {
    "data": "deeppcb",
    "pictures": 100,
    "size": "nano",
    "image_px": 320,
    "rows": [
        {"runtime": r, "dtype": d, "findings": 9, "matched": 1.0, "worst_iou": 1.0, "worst_score": 0.0}
        | {"map50": m, "map": m / 2}
        for r, d, m in (("eager", "fp32", 0.5), ("openvino", "int8", 0.45))
    ],
}


def test_the_table_shows_one_image_the_best_batch_and_the_loss(tmp_path: Path) -> None:
    mark = "<!-- results:latency -->\n<!-- /results:latency -->\n"
    write_result(tmp_path / "latency.json", MEASURED, command="dsmoe", seeds=[1])
    text = render(mark, tmp_path)
    assert "the encoder takes 200 ms and everything after it 80 ms, 40% of that" in text
    assert "| eager, fp32, cpu | 280 (1.00 to 3.00) | 1.00 | 5.0 (4) |" in text
    assert "int8" not in text
    write_result(tmp_path / "latency.json", MEASURED | {"findings": FOUND}, command="dsmoe", seeds=[1])
    text = render(mark, tmp_path)
    assert "| openvino, int8 | 9 | 100.00% | 1.0000 | 0.0000 | 0.450 | -0.050 |" in text


def test_a_gpu_is_held_against_the_goals_and_who_did_not_run_is_named(tmp_path: Path) -> None:
    gpu = {**ROW, "device": "cuda", "runtime": "compile", "dtype": "bf16"}
    rows = [
        *MEASURED["rows"],
        {**gpu, "batch": 1, "ms": 2.514, "pictures_per_s": 397.8},
        {**gpu, "batch": 64, "ms": 30.0, "pictures_per_s": 2133.4},
    ]
    measured = MEASURED | {"rows": rows, "peak_tflops": 712.3, "share_of_peak": 0.0987}
    left_out = {"openvino, fp32, cpu": "the package openvino is missing"}
    write_result(tmp_path / "latency.json", measured | {"left_out": left_out}, command="dsmoe", seeds=[1])
    text = render("<!-- results:latency -->\n<!-- /results:latency -->\n", tmp_path)
    assert "| compile, bf16, cuda | 2.51 (1.00 to 3.00) | 1.00 | 2133.4 (64) |" in text
    assert "one image takes 2.51 ms at best (goal: 3)" in text
    assert "2,133 images a second (goal: 2,000): 9.9% of the 712 TFLOP/s" in text
    assert "Left out: openvino, fp32, cpu: the package openvino is missing." in text


@pytest.mark.parametrize(
    ("where", "gpu", "shown"),
    [
        (Where.ALL, True, {"cpu": [4], "cuda": [64]}),
        (Where.ALL, False, {"cpu": [4]}),
        (Where.CPU, True, {"cpu": [4]}),
        (Where.CUDA, True, {"cuda": [64]}),
    ],
)
def test_each_device_has_batches_of_its_own(
    where: Where, gpu: bool, shown: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert _shown(where, [4], [64]) == shown


def test_a_gpu_that_is_not_there_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PrerequisiteError, match="sees no GPU"):
        _shown(Where.CUDA, [4], [64])


def test_a_runtime_whose_package_is_missing_is_left_out_and_named(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(package: str) -> Any:
        if package in ("openvino", "nncf"):
            raise PrerequisiteError(f"the package {package} is missing", "Install it.")
        return import_module(package)

    monkeypatch.setattr("pipelines.benchmarks.runtimes.import_package", lacking)
    monkeypatch.setattr("pipelines.benchmarks.runtimes.onnx_graph", lambda *_: exports.graph)
    read, network = (
        ClassEncoding(sample_texts(3), sample_texts(3), sample_texts(1), torch.zeros(())),
        diverse_network(),
    )
    field = contestants(network, SMALL, read, tmp_path, devices=["cpu"], compiled=False)
    assert [(c.runtime.name, c.runtime.precision) for c in field.running] == [
        ("eager", "fp32"),
        ("eager", "bf16"),
        ("onnxruntime", "fp32"),
    ]
    missing = "the package openvino is missing"
    assert field.left_out == {f"openvino, {p}, cpu": missing for p in ("fp32", "bf16", "int8")}


def test_a_network_that_cannot_be_compiled_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("skipping cudagraphs due to a copy\nand more")

    monkeypatch.setattr(torch, "compile", lambda graph, **options: refuse)
    monkeypatch.setattr("pipelines.benchmarks.runtimes._exported", lambda *_: [])
    read = ClassEncoding(sample_texts(3), sample_texts(3), sample_texts(1), torch.zeros(()))
    field = contestants(diverse_network(), SMALL, read, tmp_path, devices=["cpu"], compiled=True)
    assert [c.runtime.name for c in field.running] == ["eager", "eager"]
    assert field.left_out == {"compile, bf16, cpu": "skipping cudagraphs due to a copy"}


@pytest.mark.slow
def test_a_small_network_on_every_runtime() -> None:
    measured = latency.measure(SMALL, rounds=2, batches={"cpu": [2]}, seed=1)
    names = [(row["runtime"], row["dtype"], row["batch"]) for row in measured["rows"]]
    ours = [("eager", "fp32"), ("eager", "bf16"), ("onnxruntime", "fp32"), ("openvino", "fp32")]
    ours += [("openvino", "bf16")] if has_bf16() else []
    ours += [("openvino", "int8")]
    assert [n for n in names if n[:2] in ours] == [(*n, batch) for batch in (1, 2) for n in ours]
    assert measured["gflops"] > 0
    assert measured["encoder_ms"] + measured["after_encoder_ms"] <= measured["rows"][0]["ms"] * 1.5


@pytest.mark.slow
def test_a_model_is_run_by_every_runtime_on_the_same_images(
    exports: Exports, blocks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    this = load_evaluated_model(str(exports.model), None, None, Environment.read({}))
    this = replace(this, aliases=this.aliases | dict.fromkeys(COLOURS, "dark"))
    with exports.traced():
        answer = parity.measure(this, HashEncoder(), blocks, images=4, on_status=lambda _: None)
    rows = {(row["runtime"], row["dtype"]): row for row in answer["rows"]}
    assert answer["pictures"] == 4
    for name in (("eager", "fp32"), ("onnxruntime", "fp32"), ("openvino", "fp32")):
        assert rows[name]["matched"] == 1.0
        assert rows[name]["map50"] == rows[("eager", "fp32")]["map50"]
    assert rows[("openvino", "int8")]["findings"] > 0
