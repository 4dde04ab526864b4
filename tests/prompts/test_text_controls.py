"""A vocabulary in other words: texts change, and nothing else does."""

from __future__ import annotations

from dsmoe_core.schema import ClassText, Vocabulary
from prompts.text_controls import TEXT_CONTROLS

BOXES = {"rust": 7, "brick": 2, "plum": 5}
RICH = Vocabulary(
    tuple(ClassText(n, f"{n} seen on the ground", "block", (f"a {n} thing",)) for n in BOXES),
    (ClassText("block", "a square of colour"),),
    "v",
)


def test_other_words_change_texts_and_nothing_else() -> None:
    for make in TEXT_CONTROLS.values():
        other = make(RICH, BOXES, 1)
        assert other.names == RICH.names
        assert [c.parent for c in other.classes] == [c.parent for c in RICH.classes]
        assert make(RICH, BOXES, 1) == other
    assert TEXT_CONTROLS["right"](RICH, BOXES, 1) is RICH
    bare = TEXT_CONTROLS["name"](RICH, BOXES, 1)
    assert {(c.description, c.paraphrases) for c in (*bare.classes, *bare.inner)} == {("", ())}


def test_random_words_are_as_many_and_of_no_class() -> None:
    drawn = [TEXT_CONTROLS["random"](RICH, BOXES, seed) for seed in (1, 2)]
    assert drawn[0] != drawn[1]
    for one, right in zip(drawn[0].classes, RICH.classes, strict=True):
        assert len(one.description.split()) == len(right.description.split())
        assert [len(p.split()) for p in one.paraphrases] == [len(p.split()) for p in right.paraphrases]
        assert not {*BOXES, "seen", "ground"} & set(one.description.split())
    bare = Vocabulary((ClassText("pin_hole", ""),))
    assert len(TEXT_CONTROLS["random"](bare, {}, 1).classes[0].description.split()) == 2


def test_the_two_classes_with_most_boxes_swap_texts() -> None:
    other = TEXT_CONTROLS["swapped"](RICH, BOXES, 1)
    texts = {one.name: (one.description, one.paraphrases) for one in other.classes}
    assert texts["rust"] == ("plum seen on the ground", ("a plum thing",))
    assert texts["plum"] == ("rust seen on the ground", ("a rust thing",))
    assert texts["brick"] == ("brick seen on the ground", ("a brick thing",))


def test_one_class_has_nothing_to_swap() -> None:
    one = Vocabulary((ClassText("rust", "red"),))
    assert TEXT_CONTROLS["swapped"](one, {"rust": 1}, 1).classes == one.classes
