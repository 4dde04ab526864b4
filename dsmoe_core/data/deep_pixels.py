"""Reads the grey values of images with more than 8 bits per channel, and converts them to 8 bits.

Pillow keeps the upper byte of 16-bit colour only, so colour PNG is read by torchvision and PPM by NumPy.
Colour TIFF has no other reader here: its upper byte is all that is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from dsmoe_core.data.image_formats import ImageFormat
from dsmoe_core.errors import ImageError

FULL_RANGE = 65535
"""Largest value of 16 bits."""
_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_UPPER_BYTE_FROM = 8191
"""An upper byte has 5 bits or more of an image that is scaled to at least this value."""
_REMEDY = "Save the image again as 8-bit PNG or JPEG."

Values = NDArray[np.uint16]


class DeepPixels(NamedTuple):
    """The values of an image with more than 8 bits per channel.

    Attributes:
        values: height x width, or height x width x channels: grey and opacity, RGB, or RGB and opacity.
        stated_max: the largest value by the file itself; None where it states none but 16 bits.
        upper_byte_only: only the upper byte could be read; the lower one is a copy of it.
    """

    values: Values
    stated_max: int | None = None
    upper_byte_only: bool = False


def is_deep(image_format: ImageFormat, path: Path, image: Image.Image) -> bool:
    """Whether an opened file has integer values of more than 8 bits; reads the header alone."""
    return image.mode in _GREY or image_format.is_16_bit(path, image) or _ppm_max(image) > 255


def read_deep(path: Path, image: Image.Image) -> DeepPixels:
    """The values of an opened file for which :func:`is_deep` holds; not rotated.

    Raises:
        ImageError: a value is below 0 or above 65535.
        Exception: whatever a decoder raises on damaged bytes.
    """
    maximum = _ppm_max(image)
    if maximum > 255 and isinstance(image, ImageFile.ImageFile):
        return _read_ppm(path, image, maximum)
    if image.mode in _GREY:
        return DeepPixels(_checked(np.asarray(image)))
    if image.format == "PNG":
        return DeepPixels(_read_png(path))
    upper = np.asarray(image).astype(np.uint16)
    return DeepPixels(upper * 257, upper_byte_only=True)


def to_8_bit(pixels: DeepPixels, intensity_max: int) -> Image.Image:
    """The image in 8-bit RGB: values from ``intensity_max`` on are 255, transparent pixels are white.

    Raises:
        ImageError: only the upper byte was read, which is too coarse at this scale.
    """
    if pixels.upper_byte_only and intensity_max < _UPPER_BYTE_FROM:
        raise ImageError(
            f"it is 16-bit colour TIFF, of which only the upper byte can be read; {intensity_max} is white",
            "Save the image again as 16-bit PNG, or as 8-bit PNG or JPEG.",
        )
    values = np.minimum(pixels.values, intensity_max).astype(np.float64) * (255 / intensity_max)
    if values.ndim == 3 and values.shape[2] in (2, 4):
        opacity = pixels.values[..., -1:] / FULL_RANGE
        values = values[..., :-1] * opacity + 255 * (1 - opacity)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    return Image.fromarray(np.floor(values + 0.5).astype(np.uint8)).convert("RGB")


def colour_values(pixels: DeepPixels) -> Values:
    """The values without the channel of the opacity."""
    values = pixels.values
    return values[..., :-1] if values.ndim == 3 and values.shape[2] in (2, 4) else values


def _checked(values: NDArray[Any]) -> Values:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < 0 or high > FULL_RANGE:
        raise ImageError(f"its values go from {low} to {high}; expected 0 to {FULL_RANGE}", _REMEDY)
    return values.astype(np.uint16)


def _read_png(path: Path) -> Values:
    import torch
    from torchvision.io import ImageReadMode, decode_png

    content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    return _checked(decode_png(content, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy())


def _ppm_max(image: Image.Image) -> int:
    """The largest value that the header of a PGM or PPM file states; 0 for other formats."""
    if image.format != "PPM" or not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return 0
    decoder, _, _, arguments = image.tile[0]
    if decoder in ("ppm", "ppm_plain") and isinstance(arguments, tuple):
        return int(arguments[1])
    return FULL_RANGE if image.mode == "I" else 0


def _read_ppm(path: Path, image: ImageFile.ImageFile, maximum: int) -> DeepPixels:
    """The values as they are in the file; Pillow stretches them to 16 bits, or colour to 8."""
    decoder, _, offset, _ = image.tile[0]
    stated = None if maximum == FULL_RANGE else maximum
    if decoder == "ppm_plain":
        words = b"".join(line.split(b"#")[0] + b"\n" for line in path.read_bytes()[offset:].splitlines())
        raw = np.array(words.split(), dtype=np.int64)
    else:
        raw = np.frombuffer(path.read_bytes()[offset:], dtype=">u2").astype(np.int64)
    channels = 3 if image.mode == "RGB" else 1
    size = image.height * image.width * channels
    if raw.size < size:
        raise ValueError("the file ends too early")
    shape = (image.height, image.width, channels) if channels > 1 else (image.height, image.width)
    return DeepPixels(_checked(raw[:size].reshape(shape)), stated)
