"""Label Studio's labelling config (XML) of a vocabulary."""

from __future__ import annotations

import colorsys
from xml.sax.saxutils import quoteattr

from annotate.studio.controls import CLICK, CONTROL, FRAME, IMAGE_CHOICE, NOTE, OBJECT, ImageChoice
from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import ClassText, Vocabulary

_HOTKEYS = "1234567890qwetasdfgzxcvbyiopjklnm"
"""The keys that Label Studio assigns to labels, in its order. They do not collide with its shortcuts."""
_ROW = '  <View style="display: flex; flex-wrap: wrap; align-items: center; gap: 0 16px">\n'
_SMART = 'smart="true" smartOnly="true"'
_HUE_STEP = 0.618033988749895  # golden ratio: spreads hues evenly and never repeats one


def label_config(vocabulary: Vocabulary) -> str:
    """XML of the labelling config, with one rectangle label per class.

    Each label has its own colour and hotkey, and the class description as its hint. The config also has a
    smart key-point and a smart box, which are visible once an ML backend is connected, the choices for the
    whole image and a note for the domain expert.

    Raises:
        ClassBookError: a class name is blank, starts with ``$`` (which Label Studio reads as a reference to
            a task field), or has characters that XML does not preserve.
    """
    labels = "\n".join(f"    {_label(i, text)}" for i, text in enumerate(vocabulary))
    smart_labels = "\n".join(f"    {_smart_label(i, text)}" for i, text in enumerate(vocabulary))
    choices = "\n".join(f"    <Choice value={quoteattr(choice)}/>" for choice in ImageChoice)
    return (
        "<View>\n"
        '  <Header value="$reason" size="6"/>\n'
        f'  <RectangleLabels name="{CONTROL}" toName="{OBJECT}" canRotate="false" strokeWidth="2"'
        ' smart="false">\n'  # otherwise Auto-Detect lists it among the smart tools
        f"{labels}\n"
        "  </RectangleLabels>\n"
        f"{_ROW}"
        '  <Header value="Smart click" size="6"/>\n'
        f'  <KeyPointLabels name="{CLICK}" toName="{OBJECT}" {_SMART}>\n'
        f"{smart_labels}\n"
        "  </KeyPointLabels>\n"
        '  <Header value="Smart box" size="6"/>\n'
        f'  <RectangleLabels name="{FRAME}" toName="{OBJECT}" canRotate="false" {_SMART}>\n'
        f"{smart_labels}\n"
        "  </RectangleLabels>\n"
        "  </View>\n"
        f"{_ROW}"
        f'  <Choices name="{IMAGE_CHOICE}" toName="{OBJECT}" choice="multiple" showInline="true">\n'
        f"{choices}\n"
        "  </Choices>\n"
        f'  <TextArea name="{NOTE}" toName="{OBJECT}" rows="1" editable="true" maxSubmissions="1"'
        ' placeholder="Note for the domain expert"/>\n'
        "  </View>\n"
        f'  <Image name="{OBJECT}" value="${OBJECT}" zoom="true" zoomControl="true"/>\n'
        "</View>"
    )


def _smart_label(index: int, text: ClassText) -> str:
    return f"<Label value={quoteattr(text.name)} background={quoteattr(colour(index))}/>"


def colour(index: int) -> str:
    """Colour of the class at this index as ``#rrggbb``: fixed, and different from its neighbours'."""
    red, green, blue = colorsys.hls_to_rgb((index * _HUE_STEP) % 1.0, 0.45, 0.85)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _label(index: int, text: ClassText) -> str:
    if text.name != " ".join(text.name.split()) or not text.name.isprintable() or not text.name:
        raise ClassBookError(
            f"class {text.name!r} is empty, or has extra blanks or unprintable characters",
            "Rename it in the class book.",
        )
    if text.name.startswith("$"):
        raise ClassBookError(
            f"class {text.name!r} starts with '$', which Label Studio reads as a reference to a task field",
            "Rename it in the class book.",
        )
    hotkey = f" hotkey={quoteattr(_HOTKEYS[index])}" if index < len(_HOTKEYS) else ""
    hint = " ".join("".join(c if c.isprintable() else " " for c in text.description).split())
    return (
        f"<Label value={quoteattr(text.name)} background={quoteattr(colour(index))}{hotkey}"
        f" hint={quoteattr(hint)}/>"
    )
