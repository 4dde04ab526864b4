"""Ingest of a folder: unusual images are converted, unusable ones are quarantined."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsmoe_core.data import image_folder
from dsmoe_core.data.image_folder import IngestResult, ingest_folder
from dsmoe_core.errors import DataError, PrerequisiteError

SIZE = (24, 16)
PIXELS = 10_000


def ramp(mode: str = "RGB") -> Image.Image:
    """Dark on the left, bright on the right, with a red upper left corner in colour modes."""
    values = np.full((SIZE[1], SIZE[0], 3), 40, dtype=np.uint8)
    values[:, SIZE[0] // 2 :] = 200
    values[:4, :4] = (220, 20, 20)
    if mode == "P":
        return Image.fromarray(values).quantize(8, dither=Image.Dither.NONE)
    return Image.fromarray(values).convert(mode, dither=Image.Dither.NONE)


def png16(values: np.ndarray) -> bytes:
    """A 16-bit RGB PNG, which Pillow can read but not write.

    Args:
        values: (height, width, 3) of uint16.
    """
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def grey16(dark: int, bright: int) -> Image.Image:
    values = np.full((SIZE[1], SIZE[0]), dark, dtype=np.uint16)
    values[:, SIZE[0] // 2 :] = bright
    return Image.fromarray(values)


def rotated(orientation: int) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        ramp().save(path, exif=exif, quality=95)

    return save


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def ingest(tmp_path: Path, images: Path) -> Callable[[], IngestResult]:
    return lambda: ingest_folder(images, tmp_path / "store", max_pixels=PIXELS)


@pytest.mark.parametrize(
    ("name", "save", "unchanged"),
    [
        ("plain.jpg", lambda p: ramp().save(p, quality=95), True),
        ("plain.png", lambda p: ramp().save(p), True),
        ("grey.png", lambda p: ramp("L").save(p), True),
        ("grey.jpg", lambda p: ramp("L").save(p, quality=95), True),
        ("grey16.png", lambda p: grey16(40 * 257, 200 * 257).save(p), False),
        ("grey16.tif", lambda p: grey16(40 * 257, 200 * 257).save(p), False),
        ("grey12.png", lambda p: grey16(40 * 16 + 2, 200 * 16 + 12).save(p), False),
        ("rgb16.png", lambda p: p.write_bytes(png16(np.asarray(ramp(), dtype=np.uint16) * 257)), False),
        ("cmyk.jpg", lambda p: ramp("CMYK").save(p, quality=95), False),
        ("palette.png", lambda p: ramp("P").save(p), False),
        ("palette.gif", lambda p: ramp("P").save(p), False),
        ("bits.png", lambda p: ramp("1").save(p), False),
        ("alpha.png", lambda p: ramp("RGBA").save(p), False),
        ("grey_alpha.png", lambda p: ramp("LA").save(p), False),
        ("a.tif", lambda p: ramp().save(p), False),
        ("a.bmp", lambda p: ramp().save(p), False),
        ("a.webp", lambda p: ramp().save(p, lossless=True), False),
        ("a.ppm", lambda p: ramp().save(p), False),
        ("wrong_ending.png", lambda p: ramp().save(p, format="JPEG", quality=95), True),
        ("NO_ENDING", lambda p: ramp().save(p, format="PNG"), True),
    ],
)
def test_image_is_stored_with_the_right_pixels(
    images: Path,
    ingest: Callable[[], IngestResult],
    name: str,
    save: Callable[[Path], None],
    unchanged: bool,
) -> None:
    save(images / name)
    result = ingest()
    (image,) = result.images
    assert not result.quarantined
    raw = (images / name).read_bytes()
    assert image.key == hashlib.sha256(raw).hexdigest()
    assert (image.name, image.width, image.height) == (name, *SIZE)
    assert (image.path.read_bytes() == raw) == unchanged
    with Image.open(image.path) as opened:
        assert opened.format == {".jpg": "JPEG", ".png": "PNG"}[image.path.suffix]
        assert opened.mode in (("L", "RGB") if unchanged else ("RGB",))
        grey = np.asarray(opened.convert("L"), dtype=np.int64)
    dark, bright = (0, 255) if name == "bits.png" else (40, 200)
    assert grey[10, 2:10] == pytest.approx(dark, abs=6)
    assert grey[10, 14:22] == pytest.approx(bright, abs=6)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_rotation_is_applied(images: Path, ingest: Callable[[], IngestResult], orientation: int) -> None:
    rotated(orientation)(images / "a.jpg")
    (image,) = ingest().images
    assert (image.width, image.height) == (SIZE if orientation < 5 else SIZE[::-1])
    corner = {2: (-2, 1), 3: (-2, -2), 4: (1, -2), 5: (1, 1), 6: (-2, 1), 7: (-2, -2), 8: (1, -2)}
    x, y = corner[orientation]
    with Image.open(image.path) as opened:
        assert not opened.getexif()
        red, green, _ = opened.getpixel((x % opened.width, y % opened.height))
    assert red > 150 > green


def test_transparency_is_composed_over_white(images: Path, ingest: Callable[[], IngestResult]) -> None:
    Image.new("RGBA", SIZE, (10, 20, 30, 0)).save(images / "a.png")
    (image,) = ingest().images
    with Image.open(image.path) as opened:
        assert opened.getpixel((3, 3)) == (255, 255, 255)


def test_one_bright_spot_does_not_darken_a_16_bit_image(
    images: Path, ingest: Callable[[], IngestResult]
) -> None:
    spot = grey16(2000, 3000)
    spot.putpixel((0, 0), 4095)
    grey16(2000, 3000).save(images / "a.png")
    spot.save(images / "b.png")
    plain, with_spot = ingest().images
    with Image.open(plain.path) as a, Image.open(with_spot.path) as b:
        assert a.getpixel((5, 5)) == b.getpixel((5, 5)) == (125, 125, 125)


def damaged(path: Path) -> None:
    ramp().save(path)
    raw = bytearray(path.read_bytes())
    raw[45:60] = bytes(15)
    path.write_bytes(raw)


def truncated(image_format: str) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, format=image_format)
        path.write_bytes(path.read_bytes()[:-2000])

    return save


def bomb(path: Path) -> None:
    """A small file whose header states 60000 x 60000 pixels."""
    ramp().save(path)
    raw = bytearray(path.read_bytes())
    raw[16:24] = struct.pack(">II", 60_000, 60_000)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("save", "reason"),
    [
        (damaged, "damaged"),
        (truncated("JPEG"), "truncated"),
        (truncated("PNG"), "truncated"),
        (truncated("BMP"), "truncated"),
        (truncated("TIFF"), "truncated"),
        (lambda p: p.write_text("not an image"), "not an image"),
        (lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "not an image"),
        (lambda p: p.write_bytes(b""), "empty"),
        (bomb, "60000x60000"),
        (lambda p: Image.new("L", (101, 100)).save(p, format="PNG"), "101x100"),
        (lambda p: Image.new("F", SIZE, 0.5).save(p, format="TIFF"), "floating point"),
        (lambda p: Image.new("I", SIZE, 70_000).save(p, format="TIFF"), "70000"),
        (lambda p: p.symlink_to("/etc/passwd"), "link that leaves the folder"),
        (lambda p: p.symlink_to("gone.png"), "No such file"),
        (lambda p: os.mkfifo(p), "not a regular file"),
    ],
)
def test_unusable_file_is_quarantined_and_the_rest_is_ingested(
    images: Path, ingest: Callable[[], IngestResult], save: Callable[[Path], None], reason: str
) -> None:
    save(images / "bad.png")
    ramp().save(images / "good.png")
    result = ingest()
    assert [image.name for image in result.images] == ["good.png"]
    ((name, actual_reason),) = result.quarantined
    assert name == "bad.png"
    assert reason in actual_reason


def test_second_image_of_the_same_content_is_quarantined_with_the_name_of_the_first(
    images: Path, ingest: Callable[[], IngestResult]
) -> None:
    (images / "deep").mkdir()
    ramp().save(images / "a.png")
    shutil.copy(images / "a.png", images / "deep" / "b.png")
    for _ in range(2):
        result = ingest()
        assert [image.name for image in result.images] == ["a.png"]
        assert result.quarantined == (("deep/b.png", "same content as a.png"),)


def test_hidden_files_linked_folders_and_labels_are_ignored(
    tmp_path: Path, images: Path, ingest: Callable[[], IngestResult]
) -> None:
    ramp().save(images / "a.png")
    for hidden in (images / ".b.png", tmp_path / "elsewhere.png"):
        ramp("L").save(hidden)
    (images / ".git").mkdir()
    ramp("L").save(images / ".git" / "c.png")
    (images / "link").symlink_to(tmp_path)
    (images / "a.txt").write_text("0 0.5 0.5 1 1")
    for name in ("README.txt", "data.yaml", "_annotations.coco.json", "obj.names"):
        (images / name).write_text("hello")
    (images / "notes.pdf").write_text("hello")
    result = ingest()
    assert [image.name for image in result.images] == ["a.png"]
    assert [q.name for q in result.quarantined] == ["notes.pdf"]


def test_name_that_is_not_utf8_is_quarantined(images: Path, ingest: Callable[[], IngestResult]) -> None:
    ramp().save(os.fsdecode(bytes(images) + b"/\xff.png"))
    assert ingest().quarantined == (("?.png", "its name is not UTF-8"),)


def test_second_run_decodes_only_changed_files(
    images: Path, ingest: Callable[[], IngestResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp().save(images / "a.png")
    ramp("CMYK").save(images / "b.jpg")
    first = ingest()
    decoded: list[Path] = []
    decode = image_folder.decode
    monkeypatch.setattr(image_folder, "decode", lambda p, **kw: (decoded.append(p), decode(p, **kw))[1])
    assert ingest() == first
    assert decoded == []
    ramp("L").save(images / "a.png", compress_level=1)
    changed = ingest()
    assert [path.name for path in decoded] == ["a.png"]
    assert changed.images[0].key != first.images[0].key
    assert changed.images[1] == first.images[1]


def test_image_missing_from_the_store_is_stored_again(
    images: Path, ingest: Callable[[], IngestResult]
) -> None:
    ramp().save(images / "a.png")
    first = ingest()
    first.images[0].path.unlink()
    assert ingest() == first
    assert first.images[0].path.is_file()


def test_damaged_index_is_rebuilt(tmp_path: Path, images: Path, ingest: Callable[[], IngestResult]) -> None:
    ramp().save(images / "a.png")
    first = ingest()
    (tmp_path / "store" / ".ingested.json").write_text('{"half')
    assert ingest() == first


def test_lower_pixel_limit_applies_to_images_already_stored(
    tmp_path: Path, images: Path, ingest: Callable[[], IngestResult]
) -> None:
    ramp().save(images / "a.png")
    assert ingest().images
    (too_large,) = ingest_folder(images, tmp_path / "store", max_pixels=100).quarantined
    assert too_large.name == "a.png"
    assert "100" in too_large.reason


def test_full_disk_is_an_error_and_leaves_no_partial_file(
    tmp_path: Path, images: Path, ingest: Callable[[], IngestResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp().save(images / "a.png")

    def fail_to_link(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    def copy_half(_: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail_to_link)
        patch.setattr(shutil, "copyfile", copy_half)
        with pytest.raises(PrerequisiteError, match=str(tmp_path / "store")):
            ingest()
        assert [p.name for p in (tmp_path / "store").iterdir()] == [".ingested.json"]
    assert len(ingest().images) == 1


def test_file_is_copied_if_the_disk_cannot_link(
    images: Path, ingest: Callable[[], IngestResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp().save(images / "a.png")

    def fail_to_link(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", fail_to_link)
    (image,) = ingest().images
    assert image.path.read_bytes() == (images / "a.png").read_bytes()


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path / "gone")):
        ingest_folder(tmp_path / "gone", tmp_path / "store", max_pixels=PIXELS)


def test_progress_is_reported_for_every_file(tmp_path: Path, images: Path) -> None:
    ramp().save(images / "a.png")
    (images / "b.png").write_text("x")
    calls: list[tuple[int, int]] = []
    ingest_folder(
        images, tmp_path / "s", max_pixels=PIXELS, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(1, 2), (2, 2)]
