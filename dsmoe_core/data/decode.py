"""Decodes image files to upright 8-bit images, with a limit on the number of pixels.

Conversions where a file format leaves a choice:

- **16-bit grey** is scaled by a fixed range and not by the minimum and maximum of the image, so that one
  bright defect does not darken everything else. An image whose values are at most 4095 is taken as 12-bit and
  scaled by 255/4095; any other is scaled by 255/65535.
- **16-bit colour** keeps the upper byte, which is all that Pillow decodes. An image that would keep four bits
  or fewer (12-bit values in 16 bits) is refused, because it would come out black.
- **Transparency** is composed over white. **CMYK** is converted without a colour profile.
- **EXIF rotation** is applied. Of several frames or pages the first is read.

The formats themselves are registered in ``image_formats.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dsmoe_core.data.image_formats import ImageFormat, open_image
from dsmoe_core.errors import ImageError

_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSED = (5, 6, 7, 8)  # orientations that swap width and height
_GREY_16 = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_REMEDY = "Save the image again as 8-bit PNG or JPEG."


class DecodedImage(NamedTuple):
    """One decoded image.

    Attributes:
        width, height: pixels, upright.
        converted: 8-bit RGB image; None where the file can be used unchanged (a plain upright 8-bit file of a
            format that browsers show).
        suffix: ``.jpg`` or ``.png``, of the file to store.
    """

    width: int
    height: int
    converted: Image.Image | None
    suffix: str


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels after EXIF rotation, from the header alone.

    Raises:
        ImageError: the file is not an image or its header is damaged.
    """
    with _opened(path) as (_, image):
        transposed = _orientation(image) in _TRANSPOSED
        return (image.height, image.width) if transposed else (image.width, image.height)


def decode(path: Path, *, max_pixels: int) -> DecodedImage:
    """Decode an image completely; one that is too large is refused by its header.

    Args:
        max_pixels: largest width x height that is decoded.

    Raises:
        ImageError: the file is empty, damaged, truncated, not an image, too large, or of a depth that cannot
            be scaled to 8 bit.
    """
    if path.stat().st_size == 0:
        raise ImageError("it is empty (0 bytes)", "Copy the file again.")
    with _opened(path) as (image_format, image):
        _refuse_too_large(image, max_pixels)
        with _decoder_errors():
            image.load()
        is_16_bit = image_format.is_16_bit(path, image)
        plain = image.mode in ("L", "RGB") and not is_16_bit and "transparency" not in image.info
        if image_format.kept_suffix is not None and plain and _orientation(image) == 1:
            return DecodedImage(image.width, image.height, None, image_format.kept_suffix)
        if image.mode == "RGB" and is_16_bit:
            _refuse_dark_16_bit(image)
        with _decoder_errors():
            upright = ImageOps.exif_transpose(image)
        rgb = _to_rgb(upright)
        return DecodedImage(rgb.width, rgb.height, rgb, ".png")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[ImageFormat, Image.Image]]:
    """Open an image without Pillow's own pixel limit, which :func:`_refuse_too_large` replaces."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with _decoder_errors():
            image_format, image = open_image(path)
        with image:
            yield image_format, image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _decoder_errors() -> Iterator[None]:
    """Turn any failure of a decoder into an ImageError. Only decoder calls belong inside."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about unusual metadata, which does not matter here
            yield
    except (PermissionError, FileNotFoundError):
        raise
    except UnidentifiedImageError:
        raise ImageError("it is not an image, or its header is damaged", _REMEDY) from None
    except MemoryError:
        raise ImageError("it does not fit into memory", "Crop or scale it, or lower the limit.") from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged bytes
        raise ImageError(f"it is damaged or truncated: {error}", _REMEDY) from None


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where it is missing or invalid."""
    with _decoder_errors():
        value = image.getexif().get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _refuse_too_large(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"it is too large: {image.width}x{image.height} pixels, at most {max_pixels} allowed",
            "Crop or scale it, or raise the limit.",
        )


def _refuse_dark_16_bit(image: Image.Image) -> None:
    if int(np.asarray(image).max()) < 16:
        raise ImageError(
            "it is 16-bit colour that uses only the lower 12 bits, of which 4 could be read", _REMEDY
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _GREY_16:
        return _scaled(np.asarray(image, dtype=np.int64))
    if image.mode == "F":
        raise ImageError("its values are floating point, whose range is not known", _REMEDY)
    with _decoder_errors():
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, rgba)
        return image.convert("RGB")


def _scaled(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Image.Image:
    """Values of 12 or 16 bit as an 8-bit RGB image."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"its values go from {low} to {high}; expected 0 to 65535", _REMEDY)
    full = 4095 if high <= 4095 else 65535
    return Image.fromarray(((values * 255 + full // 2) // full).astype(np.uint8)).convert("RGB")
