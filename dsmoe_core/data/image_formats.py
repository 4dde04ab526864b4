"""Registry of the image file formats that can be read.

To support another format, add one entry to :data:`IMAGE_FORMATS`; ingest, prediction and the YOLO reader use
it from then on. A file is recognised by its content. Suffixes only decide which files the YOLO reader pairs
with label files.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

_BITS_PER_SAMPLE = 258  # TIFF tag


class ImageFormat(NamedTuple):
    """One image file format.

    Attributes:
        name: shown to people.
        suffixes: lower case, with the dot.
        open: opens a file as a Pillow image of mode L, RGB or any other that Pillow converts to RGB. It reads
            the header alone where it can, since the size limit is checked after it. Raises
            ``PIL.UnidentifiedImageError`` where the content is of another format.
        kept_suffix: suffix under which a plain 8-bit grey or RGB file is stored unchanged, for formats that
            every browser shows. None: files are always converted to PNG.
        is_16_bit: whether an opened file has 16 bits per channel.
    """

    name: str
    suffixes: tuple[str, ...]
    open: Callable[[Path], Image.Image]
    kept_suffix: str | None = None
    is_16_bit: Callable[[Path, Image.Image], bool] = lambda _path, _image: False


def open_image(path: Path) -> tuple[ImageFormat, Image.Image]:
    """Open an image file with the first registered format that recognises its content.

    Raises:
        UnidentifiedImageError: no format does.
    """
    for image_format in IMAGE_FORMATS:
        with suppress(UnidentifiedImageError):
            return image_format, image_format.open(path)
    raise UnidentifiedImageError(str(path))


def image_suffixes() -> frozenset[str]:
    """The file name suffixes of all registered formats."""
    return frozenset(suffix for image_format in IMAGE_FORMATS for suffix in image_format.suffixes)


def _pillow(*decoders: str) -> Callable[[Path], Image.Image]:
    """An opener that uses these decoders of Pillow alone."""
    return partial(Image.open, formats=decoders)


def _png_is_16_bit(path: Path, _image: Image.Image) -> bool:
    with path.open("rb") as file:
        return file.read(25)[24:25] == b"\x10"  # bit depth, the ninth byte of IHDR


def _tiff_is_16_bit(_path: Path, image: Image.Image) -> bool:
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    return 16 in (bits if isinstance(bits, tuple) else (bits,))


IMAGE_FORMATS: tuple[ImageFormat, ...] = (
    ImageFormat("JPEG", (".jpg", ".jpeg"), _pillow("JPEG"), kept_suffix=".jpg"),
    ImageFormat("PNG", (".png",), _pillow("PNG"), kept_suffix=".png", is_16_bit=_png_is_16_bit),
    ImageFormat("TIFF", (".tif", ".tiff"), _pillow("TIFF"), is_16_bit=_tiff_is_16_bit),
    ImageFormat("BMP", (".bmp",), _pillow("BMP")),
    ImageFormat("WebP", (".webp",), _pillow("WEBP")),
    ImageFormat("GIF", (".gif",), _pillow("GIF")),
    ImageFormat("PPM", (".ppm", ".pgm"), _pillow("PPM")),
)
"""All formats, in the order in which they are tried."""
