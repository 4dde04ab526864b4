"""The image of the experts' specialisation."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from pipelines import cli
from pipelines.benchmarks.routing_chart import Routing, routing_chart

ROUTING: dict[str, Any] = {
    "command": "dsmoe benchmark knockout",
    "classes": ["crack", "stain & spot", "hole"],
    "weights": [[0.75, 0.25], [0.10, 0.90], [0.0, 0.0]],
    "experts": 2,
    "boxes": 30,
}


def texts(svg: str) -> list[str]:
    return [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def test_chart_has_the_weights_of_the_classes_with_boxes() -> None:
    shown = texts(routing_chart(Routing.model_validate(ROUTING)))
    assert [text for text in shown if re.fullmatch(r"0\.\d\d", text)] == ["0.75", "0.25", "0.10", "0.90"]
    assert {"crack", "stain & spot", "expert 1", "expert 2"} <= set(shown)
    assert "hole" not in shown


def test_command_writes_the_chart_and_replaces_it(tmp_path: Path) -> None:
    source, chart = tmp_path / "routing.json", tmp_path / "images" / "routing.svg"
    source.write_text(json.dumps(ROUTING))
    for _ in range(2):
        assert cli.run(["benchmark", "routing-chart", str(source), str(chart)]) == 0
    assert "0.75" in texts(chart.read_text())


WITHOUT_ROUTING = {"command": "dsmoe benchmark knockout", "boxes": 0}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"rows": []}',
        json.dumps(WITHOUT_ROUTING),
        *(
            json.dumps(ROUTING | change)
            for change in (
                {"weights": [[0.0, 0.0]] * 3},
                {"weights": [[0.5, float("nan")]] * 3},
                {"weights": [[0.5, -0.5]] * 3},
                {"weights": [[0.5, 0.5]] * 2},
                {"weights": [[0.5, 0.5], [1.0], [0.5, 0.5]]},
                {"experts": 3},
                {"classes": [1, 2, 3]},
            )
        ),
        None,
    ],
    ids=lambda content: str(content)[:20],
)
def test_other_file_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    source = tmp_path / "routing.json"
    if content is not None:
        source.write_text(content)
    assert cli.run(["benchmark", "routing-chart", str(source), str(tmp_path / "chart.svg")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "chart.svg").exists()


def test_measurement_is_not_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "routing.json"
    source.write_text(json.dumps(ROUTING))
    assert cli.run(["benchmark", "routing-chart", str(source), str(source)]) == 2
    assert json.loads(source.read_text()) == ROUTING


def test_classes_of_the_same_name_have_a_row_each() -> None:
    routing = Routing.model_validate(ROUTING | {"classes": ["crack", "crack", "hole"]})
    assert texts(routing_chart(routing)).count("crack") == 2
