"""Tests of log excerpts for error messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotate.logs import log_tail


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "  (empty)"),
        (b"", "  (empty)"),
        (b"one\ntwo\n", "  one\n  two"),
        (b"broken \xff byte", "  broken \ufffd byte"),
        ("".join(f"line {i}\n" for i in range(40)).encode(), "\n".join(f"  line {i}" for i in range(25, 40))),
    ],
    ids=["missing", "empty", "short", "not text", "long"],
)
def test_log_tail(tmp_path: Path, content: bytes | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "log").write_bytes(content)
    assert log_tail(tmp_path / "log") == expected
