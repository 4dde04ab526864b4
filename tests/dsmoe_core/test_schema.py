"""The words that everyone shares: what a copy of a vocabulary knows is its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import ClassText, Vocabulary

BOARD = Vocabulary((ClassText("spur", "a thorn"), ClassText("short", "a bridge")), version="b1")


def test_a_copy_with_other_classes_has_places_of_its_own() -> None:
    turned = replace(BOARD, classes=BOARD.classes[::-1])
    assert [turned.index(name) for name in ("spur", "short")] == [1, 0]
    assert [BOARD.index(name) for name in ("spur", "short")] == [0, 1]
    fewer = replace(BOARD, classes=BOARD.classes[1:])
    assert fewer.index("short") == 0
    with pytest.raises(ClassBookError, match="'spur' is not in the class book, which has short"):
        fewer.index("spur")
    other = replace(BOARD, classes=(ClassText("hole", "a gap"), ClassText("burr", "an edge")))
    with pytest.raises(ClassBookError, match="'spur' is not in the class book"):
        other.index("spur")


def test_a_copy_in_other_words_is_equal_where_its_words_are() -> None:
    assert replace(BOARD, version="b1") == BOARD != replace(BOARD, version="b2")
    with pytest.raises(ClassBookError, match="names a class twice"):
        replace(BOARD, classes=BOARD.classes * 2)
