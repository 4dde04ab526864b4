"""A contact sheet: what training is shown, with the boxes drawn and what was done in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from annotate.studio.label_config import colour
from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.augment.sample import Sample
from dsmoe_core.data.batches import AUGMENTATIONS, TrainingSet
from dsmoe_core.data.letterbox import LetterboxReader
from dsmoe_core.schema import ClassText, LabelledImage, Vocabulary

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_GAP, _LINE, _GROUND = 8, 18, "#ffffff"


class Row(NamedTuple):
    """Images side by side under one title; an empty title takes no room."""

    title: str
    samples: list[Sample]


def training_rows(
    views: Sequence[LabelledImage],
    classes: Sequence[str],
    squares: LetterboxReader,
    training: TrainingConfig,
    count: int,
    columns: int,
) -> list[Row]:
    """So many images as such a training would show them."""
    shown = _shown(views, classes, squares, training, count)
    return [Row("", shown[i : i + columns]) for i in range(0, len(shown), columns)]


def augmentation_rows(
    views: Sequence[LabelledImage],
    classes: Sequence[str],
    squares: LetterboxReader,
    training: TrainingConfig,
    columns: int,
) -> list[Row]:
    """The same images once as they are, then under each augmentation alone, done to all of them."""
    off = dict.fromkeys(AUGMENTATIONS, 0.0)
    rows = [Row("as they are", _shown(views, classes, squares, training.model_copy(update=off), columns))]
    for name in AUGMENTATIONS:
        share = getattr(training, name)
        alone = training.model_copy(update={**off, name: 1.0})
        title = f"{name}: {share:.0%} of the images in training" if share else f"{name}: off in training"
        rows.append(Row(title, _shown(views, classes, squares, alone, columns)))
    return rows


def _shown(
    views: Sequence[LabelledImage],
    classes: Sequence[str],
    squares: LetterboxReader,
    training: TrainingConfig,
    count: int,
) -> list[Sample]:
    vocabulary = Vocabulary(tuple(ClassText(name, "") for name in classes))
    return TrainingSet(views, vocabulary, squares, training.model_copy(update={"batch": count})).samples(0)


def render_sheet(rows: Sequence[Row], classes: Sequence[str], cell: int) -> Image.Image:
    """All rows below each other, each image ``cell`` pixels wide, and a legend of the classes."""
    font = ImageFont.load_default(size=13)
    columns = max(len(row.samples) for row in rows)
    width = _GAP + columns * (cell + _GAP)
    strips = [strip for row in rows for strip in _strips(row, cell, width, font)]
    strips.append(_legend(classes, width, font))
    whole = Image.new("RGB", (width, sum(s.height for s in strips) + _GAP), _GROUND)
    top = _GAP
    for strip in strips:
        whole.paste(strip, (0, top))
        top += strip.height
    return whole


def _strips(row: Row, cell: int, width: int, font: _Font) -> list[Image.Image]:
    words = [_wrapped(", ".join(s.applied) or "as it is", font, cell) for s in row.samples]
    lines = max(len(w) for w in words)
    strip = Image.new("RGB", (width, cell + lines * _LINE + _GAP), _GROUND)
    pen = ImageDraw.Draw(strip)
    for i, (sample, said) in enumerate(zip(row.samples, words, strict=True)):
        left = _GAP + i * (cell + _GAP)
        strip.paste(_with_boxes(sample, cell), (left, 0))
        pen.text((left, cell + 2), "\n".join(said), fill="black", font=font, spacing=_LINE - 15)
    return [_line(row.title, width, font), strip] if row.title else [strip]


def _with_boxes(sample: Sample, cell: int) -> Image.Image:
    """Drawn after scaling, white around the colour, so that lines are seen on any ground."""
    scale = cell / sample.pixels.shape[0]
    image = Image.fromarray(sample.pixels).resize((cell, cell), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(image)
    for box, label in zip(sample.boxes, sample.labels, strict=True):
        x1, y1, x2, y2 = (float(v) * scale for v in box)
        pen.rectangle((x1 - 2, y1 - 2, max(x2, x1 + 1) + 1, max(y2, y1 + 1) + 1), outline="white")
        pen.rectangle((x1 - 1, y1 - 1, max(x2, x1 + 1), max(y2, y1 + 1)), outline=colour(int(label)))
    return image


def _wrapped(text: str, font: _Font, width: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _line(text: str, width: int, font: _Font) -> Image.Image:
    strip = Image.new("RGB", (width, _LINE + 4), _GROUND)
    ImageDraw.Draw(strip).text((_GAP, 2), text, fill="black", font=font)
    return strip


def _legend(classes: Sequence[str], width: int, font: _Font) -> Image.Image:
    """The colour of each class, in as many lines as it takes."""
    places, x, y = [], _GAP, 4
    for name in classes:
        long = 20 + int(font.getlength(name)) + 2 * _GAP
        if x + long > width and x > _GAP:
            x, y = _GAP, y + _LINE
        places.append((x, y))
        x += long
    strip = Image.new("RGB", (width, y + _LINE + 4), _GROUND)
    pen = ImageDraw.Draw(strip)
    for i, (name, (x, y)) in enumerate(zip(classes, places, strict=True)):
        pen.rectangle((x, y + 1, x + 14, y + 14), fill=colour(i))
        pen.text((x + 20, y), name, fill="black", font=font)
    return strip
