"""Contact sheet of training samples: images with their boxes, and the augmentations applied to each."""

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
_GAP, _LINE_HEIGHT, _BACKGROUND = 8, 18, "#ffffff"


class Row(NamedTuple):
    """Images next to each other under one title; an empty title takes no space."""

    title: str
    samples: list[Sample]


def training_rows(
    views: Sequence[LabelledImage],
    classes: Sequence[str],
    reader: LetterboxReader,
    training: TrainingConfig,
    count: int,
    columns: int,
) -> list[Row]:
    """``count`` samples as the training gets them, in rows of ``columns``."""
    samples = _samples(views, classes, reader, training, count)
    return [Row("", samples[i : i + columns]) for i in range(0, len(samples), columns)]


def augmentation_rows(
    views: Sequence[LabelledImage],
    classes: Sequence[str],
    reader: LetterboxReader,
    training: TrainingConfig,
    columns: int,
) -> list[Row]:
    """The same samples without augmentation, then once per augmentation with it applied to all of them."""
    off = dict.fromkeys(AUGMENTATIONS, 0.0)
    plain = training.model_copy(update=off)
    rows = [Row("no augmentation", _samples(views, classes, reader, plain, columns))]
    for name in AUGMENTATIONS:
        share = getattr(training, name)
        alone = training.model_copy(update={**off, name: 1.0})
        title = f"{name}: {share:.0%} of the images in training" if share else f"{name}: off in training"
        rows.append(Row(title, _samples(views, classes, reader, alone, columns)))
    return rows


def _samples(
    views: Sequence[LabelledImage],
    classes: Sequence[str],
    reader: LetterboxReader,
    training: TrainingConfig,
    count: int,
) -> list[Sample]:
    vocabulary = Vocabulary(tuple(ClassText(name, "") for name in classes))
    return TrainingSet(views, vocabulary, reader, training.model_copy(update={"batch": count})).samples(0)


def render_sheet(rows: Sequence[Row], classes: Sequence[str], cell: int) -> Image.Image:
    """All rows, one below the other, and a legend of the classes.

    Args:
        cell: width and height of an image in pixels.
    """
    font = ImageFont.load_default(size=13)
    columns = max(len(row.samples) for row in rows)
    width = _GAP + columns * (cell + _GAP)
    strips = [strip for row in rows for strip in _row_strips(row, cell, width, font)]
    strips.append(_legend(classes, width, font))
    sheet = Image.new("RGB", (width, sum(s.height for s in strips) + _GAP), _BACKGROUND)
    top = _GAP
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet


def _row_strips(row: Row, cell: int, width: int, font: _Font) -> list[Image.Image]:
    captions = [_wrapped(", ".join(s.applied) or "no augmentation", font, cell) for s in row.samples]
    lines = max(len(caption) for caption in captions)
    strip = Image.new("RGB", (width, cell + lines * _LINE_HEIGHT + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for i, (sample, caption) in enumerate(zip(row.samples, captions, strict=True)):
        left = _GAP + i * (cell + _GAP)
        strip.paste(_with_boxes(sample, cell), (left, 0))
        draw.text((left, cell + 2), "\n".join(caption), fill="black", font=font, spacing=_LINE_HEIGHT - 15)
    return [_title_strip(row.title, width, font), strip] if row.title else [strip]


def _with_boxes(sample: Sample, cell: int) -> Image.Image:
    """The boxes, drawn after scaling with a white border, so that lines are visible on any background."""
    scale = cell / sample.pixels.shape[0]
    image = Image.fromarray(sample.pixels).resize((cell, cell), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    for box, label in zip(sample.boxes, sample.labels, strict=True):
        x1, y1, x2, y2 = (float(v) * scale for v in box)
        draw.rectangle((x1 - 2, y1 - 2, max(x2, x1 + 1) + 1, max(y2, y1 + 1) + 1), outline="white")
        draw.rectangle((x1 - 1, y1 - 1, max(x2, x1 + 1), max(y2, y1 + 1)), outline=colour(int(label)))
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


def _title_strip(text: str, width: int, font: _Font) -> Image.Image:
    strip = Image.new("RGB", (width, _LINE_HEIGHT + 4), _BACKGROUND)
    ImageDraw.Draw(strip).text((_GAP, 2), text, fill="black", font=font)
    return strip


def _legend(classes: Sequence[str], width: int, font: _Font) -> Image.Image:
    """The colour of each class, on as many lines as necessary."""
    places, x, y = [], _GAP, 4
    for name in classes:
        length = 20 + int(font.getlength(name)) + 2 * _GAP
        if x + length > width and x > _GAP:
            x, y = _GAP, y + _LINE_HEIGHT
        places.append((x, y))
        x += length
    strip = Image.new("RGB", (width, y + _LINE_HEIGHT + 4), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for i, (name, (x, y)) in enumerate(zip(classes, places, strict=True)):
        draw.rectangle((x, y + 1, x + 14, y + 14), fill=colour(i))
        draw.text((x + 20, y), name, fill="black", font=font)
    return strip
