"""The labelling page of a vocabulary, in Label Studio's XML."""

from __future__ import annotations

import colorsys
from xml.sax.saxutils import quoteattr

from annotate.studio.controls import CLICK, CONTROL, FRAME, IMAGE_CHOICE, NOTE, OBJECT, ImageChoice
from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import ClassText, Vocabulary

# The keys Label Studio itself gives to labels, in its order: they collide with none of its shortcuts.
_HOTKEYS = "1234567890qwetasdfgzxcvbyiopjklnm"
_ROW = '  <View style="display: flex; flex-wrap: wrap; align-items: center; gap: 0 16px">\n'
_SMART = 'smart="true" smartOnly="true"'
_GOLDEN = 0.618033988749895  # steps of this share round the colour wheel never meet


def label_config(vocabulary: Vocabulary) -> str:
    """XML with one rectangle label per class: its own colour and key, its description as a hint.

    Beside the boxes: a smart key-point and a smart box, which the page shows once a back end is connected,
    and what can be said about the image as a whole.

    Raises:
        ClassBookError: a name is blank, starts with ``$`` (Label Studio takes it for a field of the task) or
            has characters that XML does not keep.
    """
    labels = "\n".join(f"    {_label(i, text)}" for i, text in enumerate(vocabulary))
    smart = "\n".join(f"    {_smart_label(i, text)}" for i, text in enumerate(vocabulary))
    verdicts = "\n".join(f"    <Choice value={quoteattr(verdict)}/>" for verdict in ImageChoice)
    return (
        "<View>\n"
        '  <Header value="$why" size="6"/>\n'
        f'  <RectangleLabels name="{CONTROL}" toName="{OBJECT}" canRotate="false" strokeWidth="2"'
        ' smart="false">\n'  # else Auto-Detect offers it among the smart tools
        f"{labels}\n"
        "  </RectangleLabels>\n"
        f"{_ROW}"
        '  <Header value="Smart click" size="6"/>\n'
        f'  <KeyPointLabels name="{CLICK}" toName="{OBJECT}" {_SMART}>\n'
        f"{smart}\n"
        "  </KeyPointLabels>\n"
        '  <Header value="Smart box" size="6"/>\n'
        f'  <RectangleLabels name="{FRAME}" toName="{OBJECT}" canRotate="false" {_SMART}>\n'
        f"{smart}\n"
        "  </RectangleLabels>\n"
        "  </View>\n"
        f"{_ROW}"
        f'  <Choices name="{IMAGE_CHOICE}" toName="{OBJECT}" choice="multiple" showInline="true">\n'
        f"{verdicts}\n"
        "  </Choices>\n"
        f'  <TextArea name="{NOTE}" toName="{OBJECT}" rows="1" editable="true" maxSubmissions="1"'
        ' placeholder="A note for the domain expert"/>\n'
        "  </View>\n"
        f'  <Image name="{OBJECT}" value="${OBJECT}" zoom="true" zoomControl="true"/>\n'
        "</View>"
    )


def _smart_label(index: int, text: ClassText) -> str:
    return f"<Label value={quoteattr(text.name)} background={quoteattr(colour(index))}/>"


def colour(index: int) -> str:
    """``#rrggbb`` of the class at this place: the same every time, far from its neighbours'."""
    red, green, blue = colorsys.hls_to_rgb((index * _GOLDEN) % 1.0, 0.45, 0.85)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _label(index: int, text: ClassText) -> str:
    if text.name != " ".join(text.name.split()) or not text.name.isprintable() or not text.name:
        raise ClassBookError(
            f"class {text.name!r} has blanks at its ends or in a row, or characters that cannot be shown",
            "Rename it in the class book.",
        )
    if text.name.startswith("$"):
        raise ClassBookError(
            f"class {text.name!r} starts with '$', which Label Studio takes for a field of the task",
            "Rename it in the class book.",
        )
    hotkey = f" hotkey={quoteattr(_HOTKEYS[index])}" if index < len(_HOTKEYS) else ""
    hint = " ".join("".join(c if c.isprintable() else " " for c in text.description).split())
    return (
        f"<Label value={quoteattr(text.name)} background={quoteattr(colour(index))}{hotkey}"
        f" hint={quoteattr(hint)}/>"
    )
