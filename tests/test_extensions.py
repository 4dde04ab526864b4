"""The examples of docs/architecture.md for each extension point work as written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from PIL import Image
from pydantic import Field
from streamlit.testing.v1 import AppTest

from dsmoe_core.data import image_formats
from dsmoe_core.data.image_folder import ingest_folder
from dsmoe_core.outputs import GatingOutput
from dsmoe_core.schema import Box, Detection, Prediction, Routing
from dsmoe_core.stages import experts
from pipelines.detectors import registry
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds import gate
from pipelines.rounds.acquisition.function import AcquisitionFunction, Candidates
from pipelines.settings.environment import Environment
from pipelines.settings.gate import GateSettings
from pipelines.workspace.registry import Metrics
from ui.views import Page

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "architecture.md"


def examples(heading: str) -> list[str]:
    """The Python blocks below a heading."""
    section = DOCUMENT.read_text().split(f"### {heading}\n")[1].split("\n### ")[0]
    return re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def run(code: str, names: dict[str, Any]) -> dict[str, Any]:
    """The names that a block defines, executed after ``names``."""
    exec(compile(code, str(DOCUMENT), "exec"), names)  # noqa: S102  # our own document
    return names


def prediction(key: str, *entropies: float) -> Prediction:
    detections = tuple(Detection(Box(0, 0, 4, 4), "spur", 0.5, {"spur": 0.5}, e) for e in entropies)
    return Prediction(key, detections, Routing((), (), 0.0), 0.0, "model+book")


def test_acquisition_function() -> None:
    (code,) = examples("An acquisition function")
    function = run(code, {})["MAX_ENTROPY"]
    assert isinstance(function, AcquisitionFunction)
    predictions = [prediction("none"), prediction("one", 0.6), prediction("two", 0.1, 0.2)]
    scores = function.score(Candidates([p.key for p in predictions], lambda: predictions, seed=1))
    assert scores == {"none": 0.0, "one": 0.6, "two": 0.2}


class SettingsWithLoss(GateSettings):
    """The settings with the field that the document adds for its check."""

    max_recall_loss: float = Field(0.02, ge=0, lt=1)


def test_threshold_of_the_gate_check_is_the_field_of_the_document() -> None:
    section = DOCUMENT.read_text().split("### A gate check\n")[1].split("\n### ")[0]
    assert "`max_recall_loss: float = Field(0.02, ge=0, lt=1)`" in section


@pytest.mark.parametrize(("recall", "promoted"), [(0.79, True), (0.70, False)])
def test_gate_check(recall: float, promoted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "GATE_CHECKS", dict(gate.GATE_CHECKS))
    names = dict(vars(gate))
    for code in examples("A gate check"):
        run(code, names)
    parts = {"precision": 0.9, "f1": 0.85, "per_class": {}, "evaluated_on": "test"}
    champion = Metrics(map50=0.8, map=0.5, recall=0.8, **parts)
    candidate = Metrics(map50=0.9, map=0.6, recall=recall, **parts)
    settings = SettingsWithLoss(checks=("min_gain", "recall_kept"))
    decision = gate.decide(gate.Comparison(candidate, champion, settings))
    assert decision.promoted is promoted
    values = decision.results["recall_kept"].values
    assert values == {"candidate": recall, "champion": 0.8, "max_recall_loss": 0.02}


def test_detector_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = examples("A detector backend")
    monkeypatch.setattr(registry, "DETECTOR_BACKENDS", dict(registry.DETECTOR_BACKENDS))
    run(code, {**vars(registry), "TemplateMatcher": StubDetector})
    entry = registry.detector_entry("template")
    assert not entry.tracked
    assert isinstance(entry.make(Mock(), Environment.read({})), StubDetector)


def test_task_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts, "TASK_EXPERTS", dict(experts.TASK_EXPERTS))
    names = dict(vars(experts))
    for code in examples("A task expert"):
        run(code, names)
    monkeypatch.setitem(experts.TASK_EXPERTS, "pointwise", names["TASK_EXPERTS"]["pointwise"])
    mixture = experts.SparseExperts(
        width=8, text_width=4, experts=4, grid_stride=8, task_experts=("local", "global", "pointwise")
    )
    f_b = torch.randn(2, 8, 6, 6)
    selected = GatingOutput(
        torch.full((2, 1, 1, 1), 2),
        torch.ones(2, 1, 1, 1),
        torch.full((2, 4, 1, 1), 0.25),
        torch.zeros(4, 4),
        torch.zeros(2, 4, 1, 1),
    )
    torch.testing.assert_close(mixture(f_b, selected), mixture.task[2](f_b))


def test_image_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = examples("An image format")
    entry = eval(code, dict(vars(image_formats)))  # noqa: S307  # our own document
    monkeypatch.setattr(image_formats, "IMAGE_FORMATS", (*image_formats.IMAGE_FORMATS, entry))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 6), (10, 20, 30)).save(tmp_path / "images" / "a.tga")
    ingested = ingest_folder(tmp_path / "images", tmp_path / "store", max_pixels=1000)
    assert [(i.name, i.width, i.height) for i in ingested.images] == [("a.tga", 8, 6)]


def test_page() -> None:
    (code,) = examples("A page")
    page = Page("Classes", ":material/label:", run(code, {})["show"])
    assert callable(page.show)
    script = code + "\nfrom types import SimpleNamespace\nshow(SimpleNamespace(classes=('spur', 'open')))\n"
    app = AppTest.from_string(script).run()
    assert not app.exception
    assert [header.value for header in app.header] == ["Classes"]
    assert [text.value for text in app.text] == ["spur", "open"]
