"""Control texts: only texts change."""

from __future__ import annotations

from dsmoe_core.schema import ClassText, Vocabulary
from prompts.text_controls import TEXT_CONTROLS

BOXES = {"rust": 7, "brick": 2, "plum": 5}
VOCABULARY = Vocabulary(
    tuple(ClassText(n, f"{n} seen on the ground", "block", (f"a {n} thing",)) for n in BOXES),
    (ClassText("block", "a square of colour"),),
    "v",
)


def test_controls_keep_names_order_and_taxonomy() -> None:
    for control in TEXT_CONTROLS.values():
        changed = control(VOCABULARY, BOXES, 1)
        assert changed.names == VOCABULARY.names
        assert [c.parent for c in changed.classes] == [c.parent for c in VOCABULARY.classes]
        assert control(VOCABULARY, BOXES, 1) == changed
    assert TEXT_CONTROLS["right"](VOCABULARY, BOXES, 1) is VOCABULARY
    names_only = TEXT_CONTROLS["name"](VOCABULARY, BOXES, 1)
    assert {(c.description, c.paraphrases) for c in (*names_only.classes, *names_only.inner)} == {("", ())}


def test_random_texts_have_the_same_number_of_words_and_none_of_the_class() -> None:
    first, second = (TEXT_CONTROLS["random"](VOCABULARY, BOXES, seed) for seed in (1, 2))
    assert first != second
    for changed, original in zip(first.classes, VOCABULARY.classes, strict=True):
        assert len(changed.description.split()) == len(original.description.split())
        assert [len(p.split()) for p in changed.paraphrases] == [len(p.split()) for p in original.paraphrases]
        assert not {*BOXES, "seen", "ground"} & set(changed.description.split())
    without_text = Vocabulary((ClassText("pin_hole", ""),))
    assert len(TEXT_CONTROLS["random"](without_text, {}, 1).classes[0].description.split()) == 2


def test_the_two_classes_with_most_boxes_swap_texts() -> None:
    swapped = TEXT_CONTROLS["swapped"](VOCABULARY, BOXES, 1)
    texts = {c.name: (c.description, c.paraphrases) for c in swapped.classes}
    assert texts["rust"] == ("plum seen on the ground", ("a plum thing",))
    assert texts["plum"] == ("rust seen on the ground", ("a rust thing",))
    assert texts["brick"] == ("brick seen on the ground", ("a brick thing",))


def test_single_class_has_nothing_to_swap() -> None:
    single = Vocabulary((ClassText("rust", "red"),))
    assert TEXT_CONTROLS["swapped"](single, {"rust": 1}, 1).classes == single.classes
