"""One intensity scale for the images with more than 8 bits of a set."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.decode import decode, intensity_range, upright_size
from dsmoe_core.data.deep_pixels import DeepPixels, to_8_bit
from dsmoe_core.data.external_images import read_external_folder, read_external_images
from dsmoe_core.data.image_folder import IngestResult, ingest_folder
from dsmoe_core.data.intensity_scale import IntensityRange, IntensityScale, depth_max
from dsmoe_core.errors import ImageError

PIXELS = 10_000
HEIGHT, WIDTH = 12, 16
DARK, GLINT = 2000, 5000


def grey(value: int, spot: int | None = None) -> np.ndarray:
    values = np.full((HEIGHT, WIDTH), value, dtype=np.uint16)
    if spot is not None:
        values[0, 0] = spot
    return values


def colour(value: int, spot: int | None = None) -> np.ndarray:
    return np.repeat(grey(value, spot)[..., None], 3, axis=2)


def png16(values: np.ndarray) -> bytes:
    """A 16-bit PNG of any colour type, which Pillow cannot write."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def write_png(path: Path, values: np.ndarray) -> None:
    path.write_bytes(png16(values))


def write_tiff(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(path, format="TIFF")


def write_ppm(path: Path, values: np.ndarray, maximum: int = 65535) -> None:
    kind = "P5" if values.ndim == 2 else "P6"
    head = f"{kind} {values.shape[1]} {values.shape[0]} {maximum}\n"
    path.write_bytes(head.encode() + values.astype(">u2").tobytes())


def stored_grey(result: IngestResult) -> dict[str, int]:
    """The grey level in the middle of each stored image, by name."""
    levels = {}
    for record in result.images:
        with Image.open(record.path) as image:
            levels[record.name] = image.convert("L").getpixel((WIDTH // 2, HEIGHT // 2))
    return levels


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def mixed(images: Path) -> Path:
    """The same dark scene with and without a glint, and a bright one."""
    write_png(images / "a.png", grey(DARK))
    write_png(images / "b.png", grey(DARK, GLINT))
    write_png(images / "c.png", grey(30_000))
    return images


def test_equal_scenes_stay_equal_with_and_without_a_glint(mixed: Path, tmp_path: Path) -> None:
    result = ingest_folder(mixed, tmp_path / "store", max_pixels=PIXELS)
    assert stored_grey(result) == {"a.png": 8, "b.png": 8, "c.png": 117}
    assert result.scale == IntensityScale(65_535, images=3, largest=30_000, given=False, narrower=16_383)
    assert result.clipped == ()


@pytest.mark.parametrize(
    ("intensity_max", "expected", "clipped"),
    [
        (4095, {"a.png": 125, "b.png": 125, "c.png": 255}, ("b.png", "c.png")),
        (16_383, {"a.png": 31, "b.png": 31, "c.png": 255}, ("c.png",)),
        (65_535, {"a.png": 8, "b.png": 8, "c.png": 117}, ()),
    ],
)
def test_given_scale_holds_for_all_images_and_brighter_ones_are_named(
    mixed: Path, tmp_path: Path, intensity_max: int, expected: dict[str, int], clipped: tuple[str, ...]
) -> None:
    result = ingest_folder(mixed, tmp_path / "store", max_pixels=PIXELS, intensity_max=intensity_max)
    assert stored_grey(result) == expected
    assert result.scale is not None
    assert (result.scale.intensity_max, result.scale.given) == (intensity_max, True)
    assert result.clipped == clipped


@pytest.mark.parametrize(
    ("write", "values"),
    [
        (write_png, grey),
        (write_png, colour),
        (write_png, lambda value, spot=None: np.dstack([colour(value, spot), np.full_like(grey(0), 65535)])),
        (write_png, lambda value, spot=None: np.dstack([grey(value, spot), np.full_like(grey(0), 65535)])),
        (write_tiff, grey),
        (write_ppm, grey),
        (write_ppm, colour),
    ],
    ids=["grey.png", "rgb.png", "rgba.png", "grey-alpha.png", "grey.tif", "pgm", "ppm"],
)
def test_every_format_of_12_bit_values_keeps_equal_scenes_equal(
    images: Path, tmp_path: Path, write: Callable[[Path, np.ndarray], None], values: Callable[..., np.ndarray]
) -> None:
    """No value exceeds 4095, so that is white; the first two images are dark in themselves."""
    write(images / "a", values(200))
    write(images / "b", values(200, 900))
    write(images / "c", values(4000))
    result = ingest_folder(images, tmp_path / "store", max_pixels=PIXELS)
    assert result.quarantined == ()
    assert stored_grey(result) == {"a": 12, "b": 12, "c": 249}
    assert result.scale is not None
    assert result.scale.intensity_max == 4095


@pytest.mark.parametrize(
    ("brightest", "intensity_max", "level"),
    [
        (255, 255, 100),
        (256, 1023, 25),
        (1024, 4095, 6),
        (4095, 4095, 6),
        (4096, 16_383, 2),
        (16_384, 65_535, 0),
        (65_535, 65_535, 0),
    ],
)
def test_white_is_the_largest_value_of_the_depth_that_covers_the_set(
    images: Path, tmp_path: Path, brightest: int, intensity_max: int, level: int
) -> None:
    write_png(images / "a.png", grey(100))
    write_png(images / "b.png", grey(100, brightest))
    result = ingest_folder(images, tmp_path / "store", max_pixels=PIXELS)
    assert result.scale is not None
    assert (result.scale.intensity_max, result.scale.largest) == (intensity_max, brightest)
    assert stored_grey(result) == {"a.png": level, "b.png": level}
    assert depth_max(brightest) == intensity_max


def test_one_value_more_does_not_change_the_other_images(images: Path, tmp_path: Path) -> None:
    """Scales that jump at 4095 made the first 243 and the second 15."""
    write_png(images / "a.png", grey(3900, 4095))
    write_png(images / "b.png", grey(3900, 4096))
    assert stored_grey(ingest_folder(images, tmp_path / "s", max_pixels=PIXELS)) == {"a.png": 61, "b.png": 61}


def test_images_of_8_bits_have_no_scale_and_are_not_changed_by_one(images: Path, tmp_path: Path) -> None:
    Image.new("L", (WIDTH, HEIGHT), 90).save(images / "plain.png")
    assert ingest_folder(images, tmp_path / "s", max_pixels=PIXELS).scale is None
    write_png(images / "deep.png", grey(60_000))
    result = ingest_folder(images, tmp_path / "s", max_pixels=PIXELS, intensity_max=500)
    assert stored_grey(result) == {"deep.png": 255, "plain.png": 90}
    assert result.scale is not None
    assert result.scale.images == 1


def test_pgm_with_a_stated_maximum_is_scaled_by_it_at_least(images: Path, tmp_path: Path) -> None:
    write_ppm(images / "a.pgm", grey(500), maximum=4095)
    (images / "b.pgm").write_text(f"P2 # plain\n{WIDTH} {HEIGHT} 4095\n" + "500 " * (WIDTH * HEIGHT))
    result = ingest_folder(images, tmp_path / "store", max_pixels=PIXELS)
    assert stored_grey(result) == {"a.pgm": 31, "b.pgm": 31}
    assert result.scale is not None
    assert result.scale.intensity_max == 4095


def test_scale_of_an_unchanged_folder_is_found_without_reading_it_again(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ingest_folder(mixed, tmp_path / "store", max_pixels=PIXELS)
    monkeypatch.setattr("dsmoe_core.data.image_folder.decode", None)
    monkeypatch.setattr("dsmoe_core.data.image_folder.intensity_range", None)
    assert ingest_folder(mixed, tmp_path / "store", max_pixels=PIXELS) == first


def test_images_are_stored_again_when_the_scale_changes(mixed: Path, tmp_path: Path) -> None:
    ingest_folder(mixed, tmp_path / "store", max_pixels=PIXELS)
    again = ingest_folder(mixed, tmp_path / "store", max_pixels=PIXELS, intensity_max=4095)
    assert stored_grey(again) == {"a.png": 125, "b.png": 125, "c.png": 255}


def test_progress_counts_the_first_pass_only_where_it_is_needed(mixed: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    ingest_folder(
        mixed, tmp_path / "store", max_pixels=PIXELS, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(1, 3), (2, 3), (3, 3)] * 2


def test_external_images_get_the_given_scale_or_one_of_their_own(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    own = read_external_folder(mixed, tmp_path / "one", max_pixels=PIXELS)
    assert stored_grey(own) == {"a.png": 8, "b.png": 8, "c.png": 117}
    entries = tuple(ImageAnnotations(n, WIDTH, HEIGHT, ()) for n in ("a.png", "b.png"))
    labels = AnnotationSet(("spur",), entries)
    read = read_external_images(labels, mixed, tmp_path / "two", max_pixels=PIXELS, intensity_max=4095)
    levels = [Image.open(p.image.path).convert("L").getpixel((5, 5)) for p in read.labelled]
    assert levels == [125, 125]
    assert read.clipped == ("b.png",)
    chosen = read_external_images(labels, mixed, tmp_path / "two", max_pixels=PIXELS)
    assert chosen.scale is not None
    assert (chosen.scale.intensity_max, chosen.scale.images) == (16_383, 2)


def test_16_bit_colour_tiff_is_read_only_where_its_upper_byte_is_enough() -> None:
    pixels = DeepPixels(np.full((2, 2, 3), 30 * 257, np.uint16), upper_byte_only=True)
    assert to_8_bit(pixels, 65_535).getpixel((0, 0)) == (30, 30, 30)
    with pytest.raises(ImageError, match="4095"):
        to_8_bit(pixels, 4095)


def test_transparent_pixels_of_16_bits_are_laid_on_white(tmp_path: Path) -> None:
    values = np.dstack([colour(1000), np.zeros((HEIGHT, WIDTH), np.uint16)])
    values[0, 0, 3] = 65535
    write_png(tmp_path / "a.png", values)
    converted = decode(tmp_path / "a.png", max_pixels=PIXELS, intensity_max=4095).converted
    assert converted is not None
    assert (converted.getpixel((0, 0)), converted.getpixel((3, 3))) == ((62, 62, 62), (255, 255, 255))


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.T, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_pixels_of_every_depth_are_turned_upright(
    tmp_path: Path, suffix: str, dtype: type, orientation: int
) -> None:
    values = np.arange(HEIGHT * WIDTH, dtype=dtype).reshape(HEIGHT, WIDTH)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(values).save(path, exif=exif)
    decoded = decode(path, max_pixels=PIXELS, intensity_max=255)
    assert decoded.orientation == orientation
    assert upright_size(path) == (decoded.width, decoded.height)
    if decoded.converted is not None:
        pixels = np.asarray(decoded.converted)[..., 0]
        np.testing.assert_array_equal(pixels, TURNS[orientation](values))


def test_range_of_an_image_is_its_brightest_and_its_usual_value(tmp_path: Path) -> None:
    values = np.full((100, 100), 300, dtype=np.uint16)
    values[0, :5] = 9000
    write_png(tmp_path / "a.png", values)
    assert intensity_range(tmp_path / "a.png", max_pixels=PIXELS) == IntensityRange(9000, 0, 300)
    Image.new("L", (4, 4)).save(tmp_path / "b.png")
    assert intensity_range(tmp_path / "b.png", max_pixels=PIXELS) is None


def test_number_of_frames_is_returned(images: Path, tmp_path: Path) -> None:
    pages = [Image.new("L", (WIDTH, HEIGHT), level) for level in (10, 20, 30)]
    pages[0].save(images / "a.tif", save_all=True, append_images=pages[1:])
    shutil.copy(images / "a.tif", images / "b.tif")
    pages[1].save(images / "c.tif")
    result = ingest_folder(images, tmp_path / "store", max_pixels=PIXELS)
    assert stored_grey(result) == {"a.tif": 10, "c.tif": 20}
    assert result.frames == {"a.tif": 3}
    assert result.duplicates == {"b.tif": "a.tif"}
