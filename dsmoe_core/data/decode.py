"""Reads an image file right: upright, 8 bit, and never more pixels than allowed.

What "right" means where files leave a choice:

- **16-bit grey** is scaled by a fixed range, never by the image's own darkest and brightest value: one
  bright defect must not darken the rest. Values up to 4095 are a 12-bit camera's (the usual case), scaled by
  255/4095; anything above is scaled by 255/65535.
- **16-bit colour** keeps the upper byte, all that the decoder gives; where that leaves four bits or fewer (a
  12-bit camera again) the image is refused, not shown black.
- **Transparency** is laid on white, as a viewer shows it. **CMYK** is converted without a colour profile.
- **EXIF rotation** is applied. Of several frames or pages the first is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dsmoe_core.errors import ImageError

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
_ORIENTATION = 0x0112  # EXIF tag
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height
_GREY_16 = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_REMEDY = "Save the image again as 8-bit PNG or JPEG."


class DecodedImage(NamedTuple):
    """One image, read.

    Attributes:
        width, height: pixels, upright.
        converted: 8-bit RGB; None where the file itself is a plain 8-bit JPEG or PNG
            that any viewer shows right.
        suffix: ``.jpg`` or ``.png``, of the file to keep.
    """

    width: int
    height: int
    converted: Image.Image | None
    suffix: str


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels after EXIF rotation, from the header alone.

    Raises:
        ImageError: the file is no image or its header is damaged.
    """
    with _opened(path) as image:
        turned = _orientation(image) in _TURNED
        return (image.height, image.width) if turned else (image.width, image.height)


def decode(path: Path, *, max_pixels: int) -> DecodedImage:
    """Reads an image fully, refusing it by its header where it is too large.

    Raises:
        ImageError: empty, damaged, truncated, no image, too large, or of a depth we cannot scale rightly.
    """
    if path.stat().st_size == 0:
        raise ImageError("it is empty (0 bytes)", "Copy the file again.")
    with _opened(path) as image:
        _refuse_too_large(image, max_pixels)
        with _decoders():
            image.load()
        plain = image.format in ("JPEG", "MPO", "PNG") and image.mode in ("L", "RGB")
        deep = _is_16_bit(path, image)
        if plain and not deep and _orientation(image) == 1 and "transparency" not in image.info:
            suffix = ".png" if image.format == "PNG" else ".jpg"
            return DecodedImage(image.width, image.height, None, suffix)
        if image.mode == "RGB" and deep:
            _refuse_dark_16_bit(image)
        with _decoders():
            upright = ImageOps.exif_transpose(image)
        rgb = _to_rgb(upright)
        return DecodedImage(rgb.width, rgb.height, rgb, ".png")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Opens an image without Pillow's own limit of pixels: our check of the header takes its place."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with _decoders():
            image = Image.open(path, formats=FORMATS)
        with image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _decoders() -> Iterator[None]:
    """Tells every failure of Pillow's decoders as a ImageError; only calls of Pillow belong inside."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is no reason to refuse
            yield
    except (PermissionError, FileNotFoundError):
        raise
    except UnidentifiedImageError:
        raise ImageError("it is not an image, or its header is damaged", _REMEDY) from None
    except MemoryError:
        raise ImageError("it does not fit into memory", "Cut or scale it, or lower the limit.") from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged bytes
        raise ImageError(f"it is damaged or truncated: {error}", _REMEDY) from None


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none or it makes no sense."""
    with _decoders():
        value = image.getexif().get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _refuse_too_large(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"it is too large: {image.width}x{image.height} pixels, at most {max_pixels} allowed",
            "Cut or scale it, or raise the limit.",
        )


def _is_16_bit(path: Path, image: Image.Image) -> bool:
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24:25] == b"\x10"  # bit depth, the ninth byte of IHDR
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (8,))  # BitsPerSample
        return 16 in (bits if isinstance(bits, tuple) else (bits,))
    return False


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
    with _decoders():
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, rgba)
        return image.convert("RGB")


def _scaled(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Image.Image:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"its values go from {low} to {high}; expected 0 to 65535", _REMEDY)
    full = 4095 if high <= 4095 else 65535
    return Image.fromarray(((values * 255 + full // 2) // full).astype(np.uint8)).convert("RGB")
