"""Figures in our documents come from result files and are up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.benchmarks.tables import render

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_says_what_the_result_files_say(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert render(text, ROOT / "benchmarks" / "results") == text, (
        f"run `dsmoe benchmark tables {document.name}`"
    )
