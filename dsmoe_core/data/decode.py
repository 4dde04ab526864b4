"""Decodes image files to upright 8-bit images, with a limit on the number of pixels.

Conversions where a file format leaves a choice:

- **More than 8 bits** are scaled by one value for all images of a set, see ``intensity_scale.py``, and never
  by the values of the image itself: equal scenes stay equal, and one bright defect does not darken the rest.
- **Floating point** is refused, since the range of its values is not known.
- **Transparency** is composed over white. **CMYK** is converted without a colour profile.
- **EXIF rotation** is applied. Of several frames or pages the first is read, and their number is returned.

The formats themselves are registered in ``image_formats.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from dsmoe_core.data.deep_pixels import FULL_RANGE, DeepPixels, is_deep, read_deep, to_8_bit
from dsmoe_core.data.exif_boxes import TRANSPOSED
from dsmoe_core.data.image_formats import ImageFormat, open_image
from dsmoe_core.data.intensity_scale import IntensityRange
from dsmoe_core.errors import ImageError

_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REMEDY = "Save the image again as 8-bit PNG or JPEG."


class DecodedImage(NamedTuple):
    """One decoded image.

    Attributes:
        width, height: pixels, upright.
        converted: 8-bit RGB image; None where the file can be used unchanged (a plain upright 8-bit file of a
            format that browsers show).
        suffix: ``.jpg`` or ``.png``, of the file to store.
        orientation: EXIF orientation of the file, 1 to 8; 1 for upright.
        frames: number of frames or pages in the file, of which the first was read.
        range: of the values of an image with more than 8 bits per channel; None for others.
    """

    width: int
    height: int
    converted: Image.Image | None
    suffix: str
    orientation: int = 1
    frames: int = 1
    range: IntensityRange | None = None


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels after EXIF rotation, from the header alone.

    Raises:
        ImageError: the file is not an image or its header is damaged.
    """
    with _opened(path) as (_, image):
        # Pillow states the upright size of a TIFF, and the stored one of other formats.
        transposed = _orientation(image) in TRANSPOSED and image.format != "TIFF"
        return (image.height, image.width) if transposed else (image.width, image.height)


def intensity_range(path: Path, *, max_pixels: int) -> IntensityRange | None:
    """The range of the values of an image; None for one of 8 bits, of which the header alone is read.

    Raises:
        ImageError: as :func:`decode`.
    """
    if path.stat().st_size == 0:
        raise _empty()
    with _opened(path) as (image_format, image):
        if not is_deep(image_format, path, image):
            return None
        _refuse_too_large(image, max_pixels)
        return IntensityRange.of(_read_deep(path, image))


def decode(path: Path, *, max_pixels: int, intensity_max: int = FULL_RANGE) -> DecodedImage:
    """Decode an image completely; one that is too large is refused by its header.

    Args:
        max_pixels: largest width x height that is decoded.
        intensity_max: value that becomes white in images with more than 8 bits per channel.

    Raises:
        ImageError: the file is empty, damaged, truncated, not an image, too large, or of a depth that cannot
            be scaled to 8 bit.
    """
    if path.stat().st_size == 0:
        raise _empty()
    with _opened(path) as (image_format, image):
        _refuse_too_large(image, max_pixels)
        orientation, frames = _orientation(image), _frames(image)
        if is_deep(image_format, path, image):
            pixels = _read_deep(path, image)
            upright = to_8_bit(pixels, intensity_max)
            left = _orientation(image)  # Pillow turns a TIFF when it reads it
            if left != 1:
                upright = upright.transpose(_TRANSPOSE[left])
            extent = IntensityRange.of(pixels)
            return DecodedImage(upright.width, upright.height, upright, ".png", orientation, frames, extent)
        with _decoder_errors():
            image.load()
        plain = image.mode in ("L", "RGB") and "transparency" not in image.info
        if image_format.kept_suffix is not None and plain and orientation == 1:
            return DecodedImage(
                image.width, image.height, None, image_format.kept_suffix, orientation, frames
            )
        with _decoder_errors():
            upright = ImageOps.exif_transpose(image)
        rgb = _to_rgb(upright)
        return DecodedImage(rgb.width, rgb.height, rgb, ".png", orientation, frames)


def _read_deep(path: Path, image: Image.Image) -> DeepPixels:
    with _decoder_errors():
        return read_deep(path, image)


def _empty() -> ImageError:
    return ImageError("it is empty (0 bytes)", "Copy the file again.")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[ImageFormat, Image.Image]]:
    """Open an image without Pillow's own pixel limit, which :func:`_refuse_too_large` replaces."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with _decoder_errors():
            image_format, image = open_image(path)
        if isinstance(image, ImageFile.ImageFile):
            image.filename = ""  # else Pillow maps the file, and reads a turned TIFF in the wrong order
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
    except (PermissionError, FileNotFoundError, ImageError):
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


def _frames(image: Image.Image) -> int:
    """Number of frames or pages; 1 for JPEG, whose further images are previews of the same one."""
    if image.format in ("JPEG", "MPO"):
        return 1
    with _decoder_errors():
        return int(getattr(image, "n_frames", 1))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("its values are floating point, whose range is not known", _REMEDY)
    with _decoder_errors():
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, rgba)
        return image.convert("RGB")
