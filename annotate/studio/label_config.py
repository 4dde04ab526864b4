"""Label Studio's labelling config (XML) of a vocabulary."""

from __future__ import annotations

import colorsys
from xml.sax.saxutils import quoteattr

from annotate.studio.controls import CLICK, CONTROL, FRAME, IMAGE_CHOICE, NOTE, OBJECT, ImageChoice
from dsmoe_core.errors import ClassBookError
from dsmoe_core.plain_text import unprintable
from dsmoe_core.schema import ClassText, Vocabulary

_HOTKEYS = "1234567890qwetasdfgzxcvbyiopjklnm"
"""The keys that Label Studio assigns to labels, in its order. They do not collide with its shortcuts."""
_SMART = 'smart="true" smartOnly="true"'
_IMAGE_HEIGHT = "calc(100vh - 230px)"
"""What Label Studio's bars and the lines above the image leave of the screen."""
_POINT_TOOL = "body:has(.lsf-toolbar__smart .lsf-tool_active[aria-label=key-point-tool])"
_BOX_TOOL = "body:has(.lsf-toolbar__smart .lsf-tool_active[aria-label^=rectangle])"
_STYLE = f"""
    .dsmoe-page {{ display: flex; gap: 12px }}
    .dsmoe-classes {{ width: 190px; max-height: calc(100vh - 165px); overflow-y: auto }}
    .dsmoe-classes .lsf-labels {{ display: flex; flex-direction: column; align-items: flex-start }}
    .dsmoe-classes .lsf-label {{ margin-bottom: 4px; padding-top: 2px; padding-bottom: 2px }}
    .dsmoe-classes .lsf-label {{ line-height: 20px }}
    .dsmoe-image {{ flex: 1 1 0; min-width: 0 }}
    .dsmoe-feedback {{ display: flex; align-items: center; gap: 0 16px; height: 40px }}
    .dsmoe-feedback .lsf-text-area, .dsmoe-feedback .ant-form-item {{ margin: 0 }}
    .dsmoe-feedback .lsf-text-area {{ flex: 1 1 0; max-width: 420px }}
    .dsmoe-feedback .lsf-text-area input {{ height: 30px !important }}
    body:has(.lsf-toolbar) .dsmoe-smart-click, {_POINT_TOOL} .dsmoe-box {{ display: none }}
    body:has(.lsf-toolbar) .dsmoe-smart-box, {_BOX_TOOL} .dsmoe-box {{ display: none }}
    {_POINT_TOOL} .dsmoe-smart-click, {_BOX_TOOL} .dsmoe-smart-box {{ display: block }}
  """
"""Layout of the page. One list of classes is shown at a time: that of the selected tool.

If Label Studio renames its elements, all lists are shown. No character that HTML escapes may occur here.
"""
_REASON_STYLE = (
    "margin: 0; font-size: 14px; line-height: 20px; white-space: nowrap; overflow: hidden; "
    "text-overflow: ellipsis"
)
_TITLE_STYLE = "margin: 0 0 4px 0; font-size: 14px; line-height: 20px"
FILTER_FROM = 12
"""Number of classes from which the page has a field that filters them by name."""
_HUE_STEP = 0.618033988749895  # golden ratio: spreads hues evenly and never repeats one


def label_config(vocabulary: Vocabulary) -> str:
    """XML of the labelling config, with one rectangle label per class.

    Each label has its own colour and hotkey, and the class description as its hint. The config also has a
    smart key-point and a smart box, whose labels take the place of the rectangle labels while such a tool is
    selected, the choices for the whole image and a note for the domain expert. The classes are in a column
    next to the image, so that the whole image is visible on a small screen.

    Raises:
        ClassBookError: a class name is blank, starts with ``$`` (which Label Studio reads as a reference to
            a task field), or has characters that XML does not preserve.
    """
    labels = "\n".join(f"        {_label(i, text)}" for i, text in enumerate(vocabulary))
    smart_labels = "\n".join(f"        {_smart_label(i, text)}" for i, text in enumerate(vocabulary))
    choices = "\n".join(f"        <Choice value={quoteattr(choice)}/>" for choice in ImageChoice)
    return f"""<View>
  <Style>{_STYLE}</Style>
  <View className="dsmoe-page">
    <View className="dsmoe-classes">
      <View className="dsmoe-box">
{_filter(len(vocabulary))}\
        <RectangleLabels name="{CONTROL}" toName="{OBJECT}" canRotate="false" strokeWidth="2" smart="false">
{labels}
        </RectangleLabels>
      </View>
      <View className="dsmoe-smart-click">
        <Header value="Smart click" size="6" style="{_TITLE_STYLE}"/>
        <KeyPointLabels name="{CLICK}" toName="{OBJECT}" {_SMART}>
{smart_labels}
        </KeyPointLabels>
      </View>
      <View className="dsmoe-smart-box">
        <Header value="Smart box" size="6" style="{_TITLE_STYLE}"/>
        <RectangleLabels name="{FRAME}" toName="{OBJECT}" canRotate="false" {_SMART}>
{smart_labels}
        </RectangleLabels>
      </View>
    </View>
    <View className="dsmoe-image">
      <Header value="$reason" size="6" style="{_REASON_STYLE}"/>
      <View className="dsmoe-feedback">
        <Choices name="{IMAGE_CHOICE}" toName="{OBJECT}" choice="multiple" showInline="true">
{choices}
        </Choices>
        <TextArea name="{NOTE}" toName="{OBJECT}" rows="1" editable="true" maxSubmissions="1" \
placeholder="Note for the domain expert"/>
      </View>
      <Image name="{OBJECT}" value="${OBJECT}" zoom="true" zoomControl="true" maxHeight="{_IMAGE_HEIGHT}"/>
    </View>
  </View>
</View>"""


def _filter(classes: int) -> str:
    if classes < FILTER_FROM:
        return ""
    return f'        <Filter toName="{CONTROL}" name="filter" minlength="0" placeholder="Find a class"/>\n'


def _smart_label(index: int, text: ClassText) -> str:
    return f"<Label value={quoteattr(text.name)} background={quoteattr(colour(index))}/>"


def colour(index: int) -> str:
    """Colour of the class at this index as ``#rrggbb``: fixed, and different from its neighbours'."""
    red, green, blue = colorsys.hls_to_rgb((index * _HUE_STEP) % 1.0, 0.45, 0.85)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _label(index: int, text: ClassText) -> str:
    if text.name != " ".join(text.name.split()) or unprintable(text.name) or not text.name:
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
    hint = " ".join("".join(" " if unprintable(c) else c for c in text.description).split())
    return (
        f"<Label value={quoteattr(text.name)} background={quoteattr(colour(index))}{hotkey}"
        f" hint={quoteattr(hint)}/>"
    )
