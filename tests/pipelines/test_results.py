"""Tables in documents come from result files, or say that nothing was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dsmoe_core.errors import FormatError
from pipelines.results import render_tables

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = "before\n<!-- results:demo -->\nold\n<!-- /results -->\nafter\n"


def demo(**changes: Any) -> str:
    shares = {"accepted": 0.5, "moved": 0.25, "relabelled": 0.1, "deleted": 0.15, "added": 0.2}
    first = {"round": 1, "pictures": 12, "boxes": 40, "map50": 0.3119, "map": 0.125, "promoted": True}
    second = {"round": 2, "pictures": 9, "boxes": 41, "map50": 0.3, "map": 0.12, "promoted": False, **shares}
    rounds = [{**first, "reason": "first"}, {**second, "reason": "0.300 | not above 0.312"}]
    about = {
        "command": "dsmoe demo --headless",
        "commit": "0123456789abcdef",
        "date": "2026-01-02",
        "seeds": [42],
    }
    machine = {"cpu": "a CPU", "cores": 2, "gpu": None}
    return json.dumps(
        {**about, "machine": machine, "data": "synthetic PCB", "minutes": 7.26, "rounds": rounds, **changes}
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "demo.json").write_text(demo())
    return tmp_path


def test_the_table_replaces_what_stood_there(results: Path) -> None:
    lines = render_tables(DOCUMENT, results).splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    assert "old" not in lines
    assert lines[4] == "| 1 | 12 | 40 |  |  |  |  |  | 0.312 | 0.125 | promoted: first |"
    assert lines[5] == (
        "| 2 | 9 | 41 | 50% | 25% | 10% | 15% | 20% | 0.300 | 0.120 | refused: 0.300 / not above 0.312 |"
    )
    assert lines[7] == (
        "Data: synthetic PCB. 7.3 minutes in all. Measured by `dsmoe demo --headless` (seed 42) on a CPU, "
        "2 cores, 2026-01-02, at 0123456789ab."
    )


def test_every_row_has_the_header_s_cells(results: Path) -> None:
    rows = [line for line in render_tables(DOCUMENT, results).splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {12}


def test_rendering_twice_changes_nothing(results: Path) -> None:
    once = render_tables(DOCUMENT, results)
    assert render_tables(once, results) == once


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    assert "Not measured yet. `dsmoe benchmark demo` measures it." in render_tables(DOCUMENT, tmp_path)


def test_text_without_regions_stays(results: Path) -> None:
    assert render_tables("nothing here\n", results) == "nothing here\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- results:demo -->\nnever closed\n", "1 results markers make 0 regions"),
        (f"{DOCUMENT}<!-- /results -->\n", "3 results markers make 1 regions"),
        (DOCUMENT.replace("demo", "unheard-of"), "no table is known for results:unheard-of; known are demo"),
    ],
)
def test_a_wrong_region_is_refused(results: Path, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        render_tables(text, results)


@pytest.mark.parametrize("content", ["not JSON", demo(rounds=None), demo(minutes="long")])
def test_a_wrong_result_file_is_refused_by_its_name(results: Path, content: str) -> None:
    (results / "demo.json").write_text(content)
    with pytest.raises(FormatError, match=r"demo\.json is no demo result"):
        render_tables(DOCUMENT, results)


def test_the_command_rewrites_a_document(results: Path, tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(DOCUMENT)
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    (folder / "demo.json").write_text(demo())
    subprocess.run(
        [sys.executable, "-m", "pipelines.results", document.name],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert document.read_text() == render_tables(DOCUMENT, results)
