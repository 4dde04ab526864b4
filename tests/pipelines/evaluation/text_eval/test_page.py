"""The HTML report on a class book: its numbers, embedded charts, and missing parts."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from nasty_names import CONTROL, GROUPS, NAMES
from scenes import labelled

from dsmoe_core.plain_text import visible
from dsmoe_core.schema import LabelledImage
from pipelines.evaluation.report.evaluated_model import EvaluatedModel
from pipelines.evaluation.text_eval import page
from pipelines.evaluation.text_eval.distances import ClassDistances
from pipelines.evaluation.text_eval.eval_set import EvaluationSet
from pipelines.evaluation.text_eval.evaluate import TextEvaluationRequest, evaluate_class_book
from tests.pipelines.evaluation.report.test_page import parsed, read
from tests.pipelines.evaluation.text_eval.conftest import SHAPES, RecordingProgress, book


@pytest.fixture
def metrics(
    model: EvaluatedModel, truth: list[LabelledImage], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """A result with distances, which the detector of these tests does not have."""
    ball = np.array([[0, 1.5, 2.25], [1.5, 0, 1], [2.25, 1, 0]])
    monkeypatch.setattr(
        "pipelines.evaluation.text_eval.evaluate.class_distances", lambda *_: ClassDistances(ball / 4, ball)
    )
    request = TextEvaluationRequest(book(spur=SHAPES["hole"]), book(), tolerance=0.01, resamples=100, seed=1)
    left_out = [{"name": "torn.png", "reason": "it is damaged", "boxes": 2}]
    data = EvaluationSet("boards", [*truth, labelled("empty")], left_out, ["3 crowd regions left out"])
    return evaluate_class_book(request, model, data, "dsmoe classes evaluate", RecordingProgress())


def test_report_is_self_contained_and_reproducible(metrics: dict[str, Any], tmp_path: Path) -> None:
    page.write_report(tmp_path / "out", metrics)
    page.write_report(tmp_path / "again", metrics)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"report.html", "evaluation.json"}
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == metrics
    texts = [(tmp_path / name / "report.html").read_bytes() for name in ("out", "again")]
    assert texts[0] == texts[1]
    reader = read(tmp_path / "out")
    assert len(reader.addresses) == 3 + 2 + 1  # forest plots, distances, experts
    for address in reader.addresses:
        content = base64.b64decode(address.removeprefix("data:image/svg+xml;base64,"))
        assert content.startswith(b"<svg ")
        assert b"url(http" not in content
    assert not {"script", "link", "iframe", "base"} & set(reader.tags)


def test_page_shows_the_metrics(metrics: dict[str, Any], tmp_path: Path) -> None:
    page.write_report(tmp_path / "out", metrics)
    text = read(tmp_path / "out").text
    assert metrics["reason"] in text
    for row in (*metrics["classes"], *metrics["controls"]):
        for name in ("map", "map50", "margin"):
            values = row.get("total", row)[name]
            low, high = values["ci95"]
            assert f"{values['delta']:+.3f} {low:+.3f} to {high:+.3f}" in text
    row = metrics["classes"][0]
    ball, embedding = (row["distance"]["this"][space] for space in ("ball", "embedding"))
    assert f"{row['name']} {row['confused_with']} {ball:.3f} {ball:.3f} {embedding:.3f}" in text
    assert "torn.png (2 boxes): it is damaged" in text
    assert "3 crowd regions left out" in text
    assert "nan" not in text.lower().split()
    random_words = next(row for row in metrics["controls"] if row["control"] == "random")
    low, high = random_words["total"]["map"]["spread"]
    assert f"{low:+.3f} to {high:+.3f}" in text


@pytest.mark.parametrize("names", [GROUPS[0], GROUPS[-1], CONTROL[:3]], ids=["first", "last", "control"])
def test_names_from_outside_are_text_on_the_page(metrics: dict[str, Any], names: Sequence[str]) -> None:
    text = json.dumps(metrics)
    for row, name in zip(metrics["classes"], names, strict=True):
        text = text.replace(json.dumps(row["name"]), json.dumps(name))
    renamed = json.loads(text)
    renamed["book"], renamed["data"], renamed["command"] = names
    renamed["left_out"]["this"] = renamed["notes"] = [*NAMES, *CONTROL]
    reader = parsed(page.render_page(renamed))
    for name in (*NAMES, *CONTROL):
        shown = " ".join(visible(name).split())
        assert reader.text.count(shown) >= (6 if name in names else 2)
    assert "script" not in reader.tags
    assert not {attribute for attribute in reader.attributes if attribute.startswith("on")}
    assert all(address.startswith("data:image/svg+xml;base64,") for address in reader.addresses)
    for address in reader.addresses:
        ElementTree.fromstring(base64.b64decode(address.partition(",")[2]))  # noqa: S314  # our own text


def test_page_without_distances_experts_and_class_metrics(metrics: dict[str, Any], tmp_path: Path) -> None:
    bare = {**metrics, "distances": {}, "experts": {}}
    bare["classes"] = [{k: v for k, v in row.items() if k in ("name", "boxes")} for row in metrics["classes"]]
    bare["left_out"] = {"this": ["<b>dent</b>"], "other": [], "boxes": 1, "images": []}
    bare["text_effect"] = {**metrics["text_effect"], "answer": "not shown", "sentence": "It does not"}
    page.write_report(tmp_path / "out", bare)
    reader = read(tmp_path / "out")
    assert len(reader.addresses) == 3
    assert "<b>dent</b>" in reader.text
    assert "1 box " in reader.text
    assert "It does not." in reader.text
    assert "None" not in reader.text
