"""Copies of a vocabulary."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import ClassText, Vocabulary

BOARD = Vocabulary((ClassText("spur", "a thorn"), ClassText("short", "a bridge")), version="b1")


def test_copy_with_other_classes_has_its_own_index() -> None:
    reversed_order = replace(BOARD, classes=BOARD.classes[::-1])
    assert [reversed_order.index(name) for name in ("spur", "short")] == [1, 0]
    assert [BOARD.index(name) for name in ("spur", "short")] == [0, 1]
    fewer = replace(BOARD, classes=BOARD.classes[1:])
    assert fewer.index("short") == 0
    with pytest.raises(ClassBookError, match=r"'spur'.* short"):
        fewer.index("spur")
    other = replace(BOARD, classes=(ClassText("hole", "a gap"), ClassText("burr", "an edge")))
    with pytest.raises(ClassBookError, match="'spur'"):
        other.index("spur")


def test_equality_and_duplicate_names() -> None:
    assert replace(BOARD, version="b1") == BOARD != replace(BOARD, version="b2")
    with pytest.raises(ClassBookError):
        replace(BOARD, classes=BOARD.classes * 2)
