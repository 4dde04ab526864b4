"""The labelling page's XML: safe whatever a class is called."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.studio.controls import CLICK, CONTROL, FRAME, IMAGE_CHOICE, NOTE, OBJECT, ImageChoice
from annotate.studio.label_config import colour, label_config
from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import ClassText, Vocabulary

NAMES = st.text(min_size=1, max_size=20).filter(
    lambda s: s.isprintable() and s == " ".join(s.split()) and not s.startswith("$")
)


def labels(vocabulary: Vocabulary) -> list[dict[str, str]]:
    return [dict(label.attrib) for label in control(vocabulary, CONTROL)]


def control(vocabulary: Vocabulary, name: str) -> ElementTree.Element:
    tree = ElementTree.fromstring(label_config(vocabulary))  # noqa: S314  # our own text
    (found,) = [tag for tag in tree.iter() if tag.get("name") == name]
    return found


@given(st.lists(NAMES, min_size=1, max_size=40, unique=True), st.text(max_size=60))
def test_names_survive_and_every_class_has_its_own_colour_and_key(names: list[str], description: str) -> None:
    found = labels(Vocabulary(tuple(ClassText(name, description) for name in names)))
    assert [label["value"] for label in found] == names
    assert len({label["background"] for label in found}) == len(names)
    keys = [label["hotkey"] for label in found if "hotkey" in label]
    assert len(keys) == len(set(keys)) == min(len(names), 33)


def test_the_description_is_the_hint() -> None:
    (label,) = labels(Vocabulary((ClassText("open", 'a "gap"\n in <a> trace & more'),)))
    assert label["hint"] == 'a "gap" in <a> trace & more'


@pytest.mark.parametrize(("name", "tag"), [(CLICK, "KeyPointLabels"), (FRAME, "RectangleLabels")])
def test_smart_tools_have_the_same_classes_and_draw_nothing_of_their_own(name: str, tag: str) -> None:
    book = Vocabulary((ClassText("open", "d"), ClassText('a "b" & c', "d")))
    smart = control(book, name)
    assert (smart.tag, smart.get("toName"), smart.get("smart"), smart.get("smartOnly")) == (
        tag,
        OBJECT,
        "true",
        "true",
    )
    plain = [(label["value"], label["background"]) for label in labels(book)]
    assert [(label.get("value"), label.get("background")) for label in smart] == plain


def test_what_can_be_said_of_a_image_is_on_the_page() -> None:
    book = Vocabulary((ClassText("open", "d"),))
    assert [choice.get("value") for choice in control(book, IMAGE_CHOICE)] == [str(v) for v in ImageChoice]
    assert control(book, NOTE).tag == "TextArea"


@pytest.mark.parametrize("name", ["", " open", "open ", "a  b", "a\tb", "a\x00b", "$open"])
def test_a_name_that_the_page_cannot_show_is_refused(name: str) -> None:
    with pytest.raises(ClassBookError, match="class '"):
        label_config(Vocabulary((ClassText(name, "d"),)))


def test_colours_stay_what_they_are() -> None:
    assert colour(0) == colour(0) != colour(1)
    assert colour(5).startswith("#")
    assert len(colour(5)) == 7
