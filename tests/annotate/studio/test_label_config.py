"""Tests of the labelling config, with arbitrary class names."""

from __future__ import annotations

from xml.etree import ElementTree

import nasty_names
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.studio.controls import CLICK, CONTROL, FRAME, IMAGE_CHOICE, NOTE, OBJECT, ImageChoice
from annotate.studio.label_config import FILTER_FROM, colour, label_config
from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import ClassText, Vocabulary

NAMES = st.text(min_size=1, max_size=20).filter(
    lambda s: s.isprintable() and s == " ".join(s.split()) and not s.startswith("$")
)


def labels(vocabulary: Vocabulary) -> list[dict[str, str]]:
    return [dict(label.attrib) for label in control(vocabulary, CONTROL)]


def control(vocabulary: Vocabulary, name: str) -> ElementTree.Element:
    tree = ElementTree.fromstring(label_config(vocabulary))  # noqa: S314  # our own text
    (element,) = [tag for tag in tree.iter() if tag.get("name") == name]
    return element


def test_names_that_are_markup_elsewhere_are_the_same_after_parsing() -> None:
    names = list(nasty_names.CLASS_NAMES)
    described = Vocabulary(tuple(ClassText(name, name) for name in names))
    assert [label["value"] for label in labels(described)] == names
    assert [label["hint"] for label in labels(described)] == names


@given(st.lists(NAMES, min_size=1, max_size=40, unique=True), st.text(max_size=60))
def test_every_class_has_its_name_colour_and_hotkey(names: list[str], description: str) -> None:
    parsed = labels(Vocabulary(tuple(ClassText(name, description) for name in names)))
    assert [label["value"] for label in parsed] == names
    assert len({label["background"] for label in parsed}) == len(names)
    keys = [label["hotkey"] for label in parsed if "hotkey" in label]
    assert len(keys) == len(set(keys)) == min(len(names), 33)


def test_description_is_the_hint() -> None:
    (label,) = labels(Vocabulary((ClassText("open", 'a "gap"\n in <a> trace & more'),)))
    assert label["hint"] == 'a "gap" in <a> trace & more'


@pytest.mark.parametrize(("name", "tag"), [(CLICK, "KeyPointLabels"), (FRAME, "RectangleLabels")])
def test_smart_tools_have_the_same_classes(name: str, tag: str) -> None:
    vocabulary = Vocabulary((ClassText("open", "d"), ClassText('a "b" & c', "d")))
    smart = control(vocabulary, name)
    assert (smart.tag, smart.get("toName"), smart.get("smart"), smart.get("smartOnly")) == (
        tag,
        OBJECT,
        "true",
        "true",
    )
    boxes = [(label["value"], label["background"]) for label in labels(vocabulary)]
    assert [(label.get("value"), label.get("background")) for label in smart] == boxes


def test_config_has_image_level_choices_and_a_note() -> None:
    vocabulary = Vocabulary((ClassText("open", "d"),))
    values = [choice.get("value") for choice in control(vocabulary, IMAGE_CHOICE)]
    assert values == [str(choice) for choice in ImageChoice]
    assert control(vocabulary, NOTE).tag == "TextArea"


@pytest.mark.parametrize("name", ["", " open", "open ", "a  b", "a\tb", "a\x00b", "$open"])
def test_class_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(ClassBookError, match="class '"):
        label_config(Vocabulary((ClassText(name, "d"),)))


@pytest.mark.parametrize("count", [1, FILTER_FROM - 1, FILTER_FROM, 40])
def test_classes_can_be_filtered_from_twelve_on(count: int) -> None:
    config = label_config(Vocabulary(tuple(ClassText(f"c{i}", "d") for i in range(count))))
    filters = [tag.get("toName") for tag in ElementTree.fromstring(config).iter("Filter")]  # noqa: S314
    assert filters == ([CONTROL] if count >= FILTER_FROM else [])


def test_style_has_no_character_that_html_escapes() -> None:
    """Label Studio escapes the text of a style as HTML, which would make such a rule invalid."""
    config = label_config(Vocabulary((ClassText("open", "d"),)))
    (style,) = ElementTree.fromstring(config).iter("Style")  # noqa: S314
    assert style.text
    assert not set(style.text) & set('<>&"')


def test_colours_are_fixed() -> None:
    assert colour(0) == colour(0) != colour(1)
    assert colour(5).startswith("#")
    assert len(colour(5)) == 7
