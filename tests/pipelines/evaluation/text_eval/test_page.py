"""The page says what evaluation.json says, holds its charts, and asks nobody for anything."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import labelled

from dsmoe_core.schema import LabelledImage
from pipelines.evaluation.report.evaluated_model import EvaluatedModel
from pipelines.evaluation.text_eval import page
from pipelines.evaluation.text_eval.distances import ClassDistances
from pipelines.evaluation.text_eval.eval_set import EvaluationSet
from pipelines.evaluation.text_eval.evaluate import TextEvaluationRequest, evaluate_class_book
from tests.pipelines.evaluation.report.test_page import read
from tests.pipelines.evaluation.text_eval.conftest import SHAPES, RecordingProgress, book


@pytest.fixture
def measured(
    model: EvaluatedModel, truth: list[LabelledImage], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """With distances of an encoder that is not there."""
    apart = np.array([[0, 1.5, 2.25], [1.5, 0, 1], [2.25, 1, 0]])
    monkeypatch.setattr(
        "pipelines.evaluation.text_eval.evaluate.class_distances", lambda *_: ClassDistances(apart / 4, apart)
    )
    question = TextEvaluationRequest(book(spur=SHAPES["hole"]), book(), tolerance=0.01, resamples=100, seed=1)
    left = [{"name": "torn.png", "reason": "it is damaged", "boxes": 2}]
    data = EvaluationSet("boards", [*truth, labelled("empty")], left, ["3 crowd regions left out"])
    return evaluate_class_book(question, model, data, "dsmoe classes evaluate", RecordingProgress())


def test_a_report_holds_its_charts_and_names_no_other_place(measured: dict[str, Any], tmp_path: Path) -> None:
    page.write(tmp_path / "out", measured)
    page.write(tmp_path / "again", measured)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"report.html", "evaluation.json"}
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == measured
    texts = [(tmp_path / name / "report.html").read_bytes() for name in ("out", "again")]
    assert texts[0] == texts[1]
    reader = read(tmp_path / "out")
    assert len(reader.addresses) == 3 + 2 + 1  # forests, distances, experts
    for address in reader.addresses:
        content = base64.b64decode(address.removeprefix("data:image/svg+xml;base64,"))
        assert content.startswith(b"<svg ")
        assert b"url(http" not in content
    assert not {"script", "link", "iframe", "base"} & set(reader.tags)


def test_figures_stand_on_it_as_they_are_in_the_json(measured: dict[str, Any], tmp_path: Path) -> None:
    page.write(tmp_path / "out", measured)
    text = read(tmp_path / "out").text
    assert f"Worse: class book {measured['book']} against {measured['against']}" in text
    assert measured["reason"] in text
    for row in (*measured["classes"], *measured["controls"]):
        for name in ("map", "map50", "margin"):
            one = row.get("total", row)[name]
            assert f"{one['delta']:+.3f} {one['ci95'][0]:+.3f} to {one['ci95'][1]:+.3f}" in text
    row = measured["classes"][0]
    far = row["to_rival"]["this"]
    assert f"{row['name']} {row['rival']} {far['ball']:.3f} {far['ball']:.3f} {far['embedding']:.3f}" in text
    assert "torn.png (2 boxes): it is damaged" in text
    assert "3 crowd regions left out" in text
    assert "nan" not in text.lower().split()
    low, high = next(one for one in measured["controls"] if one["words"] == "random")["total"]["map"][
        "spread"
    ]
    assert f"by draw {low:+.3f} to {high:+.3f}" in text
    assert "Random words are the mean of 3 draws, with seeds from 1 on" in text


def test_what_is_not_there_is_said(measured: dict[str, Any], tmp_path: Path) -> None:
    bare = {**measured, "distances": {}, "experts": {}}
    bare["classes"] = [
        {k: v for k, v in row.items() if k in ("name", "boxes")} for row in measured["classes"]
    ]
    bare["left_out"] = {"this": ["<b>dent</b>"], "other": [], "boxes": 1, "images": []}
    bare["text_effect"] = {
        **measured["text_effect"],
        "answer": "not shown",
        "sentence": "It does not",
    }
    page.write(tmp_path / "out", bare)
    reader = read(tmp_path / "out")
    assert "This detector reads no words" in reader.text
    assert "no router that could be looked at" in reader.text
    assert "Only in A: <b>dent</b>. 1 box of such classes count for nothing." in reader.text
    assert "It does not." in reader.text
    assert "None" not in reader.text
