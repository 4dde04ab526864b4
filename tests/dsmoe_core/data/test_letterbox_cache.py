"""Cache of letterboxed images: equal to the files, even after damage, crashes and changed settings."""

from __future__ import annotations

import errno
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsmoe_core.config import Preprocessing
from dsmoe_core.data import letterbox_cache
from dsmoe_core.data.letterbox import LetterboxReader
from dsmoe_core.data.letterbox_cache import CacheConfig, LetterboxCache
from dsmoe_core.errors import PrerequisiteError
from dsmoe_core.schema import ImageRecord, LabelledImage

SIDE = 64
ROOT = Path(__file__).resolve().parents[3]
READER = LetterboxReader(SIDE)


def fill_cache(folder: Path, images: list[LabelledImage], reader: LetterboxReader = READER) -> None:
    """Write all images to a cache and close it."""
    cache = LetterboxCache(reader, CacheConfig(folder))
    for labelled in images:
        cache.read(labelled.image)
    cache.flush()


def data_file(folder: Path) -> Path:
    (path,) = folder.glob("*/data.mdb")
    return path


def assert_cache_equals_files(
    folder: Path, images: list[LabelledImage], reader: LetterboxReader = READER
) -> None:
    cache = LetterboxCache(reader, CacheConfig(folder))
    for labelled in images:
        np.testing.assert_array_equal(cache.read(labelled.image), reader.read(labelled.image))


def record(name: str, path: Path = Path("gone")) -> ImageRecord:
    """An image with a key of its own; without its file it can only be read from a cache."""
    return ImageRecord(sha256(name.encode()).hexdigest(), "", path, 100, 80)


def without_files(images: list[LabelledImage]) -> list[ImageRecord]:
    """The same images without files, which can only be read from a cache."""
    return [ImageRecord(labelled.image.key, "", Path("gone"), 100, 80) for labelled in images]


def test_cached_images_are_read_without_their_files(tmp_path: Path, images: list[LabelledImage]) -> None:
    fill_cache(tmp_path / "cache", images)
    cache = LetterboxCache(READER, CacheConfig(tmp_path / "cache"))
    for cached, labelled in zip(without_files(images), images, strict=True):
        np.testing.assert_array_equal(cache.read(cached), READER.read(labelled.image))


@pytest.mark.parametrize(
    "other",
    [
        LetterboxReader(SIDE, Preprocessing(gamma=1.5)),
        LetterboxReader(SIDE, Preprocessing(resampling="bilinear")),
        LetterboxReader(96),
    ],
    ids=["gamma", "resampling", "side"],
)
def test_changed_setting_does_not_read_the_old_cache(
    tmp_path: Path, images: list[LabelledImage], other: LetterboxReader
) -> None:
    folder = tmp_path / "cache"
    fill_cache(folder, images)
    old = data_file(folder)
    assert_cache_equals_files(folder, images, other)
    (new,) = {path.parent for path in folder.glob("*/data.mdb")} - {old.parent}
    new.joinpath("data.mdb").write_bytes(old.read_bytes())  # a file in the wrong place is not read either
    assert_cache_equals_files(folder, images, other)
    assert_cache_equals_files(folder, images)


def test_changed_code_removes_the_old_cache(
    tmp_path: Path, images: list[LabelledImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_cache(tmp_path, images)
    (old,) = (path.parent for path in tmp_path.glob("*/data.mdb"))
    monkeypatch.setattr(letterbox_cache, "_CODE_VERSION", "other")
    cache = LetterboxCache(READER, CacheConfig(tmp_path))
    with pytest.raises(FileNotFoundError):
        cache.read(without_files(images)[0])
    assert not old.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.9999])
def test_truncated_cache_is_rebuilt(
    tmp_path: Path, images: list[LabelledImage], share: float, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache"
    fill_cache(folder, images)
    data = data_file(folder)
    size = data.stat().st_size
    with data.open("r+b") as file:
        file.truncate(int(size * share))
    assert_cache_equals_files(folder, images)
    assert [message.levelname for message in caplog.records] == ["WARNING"]
    fill_cache(folder, images)
    cache = LetterboxCache(READER, CacheConfig(folder))
    assert [cache.read(cached).shape for cached in without_files(images)] == [(SIDE, SIDE, 3)] * len(images)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.floats(0, 1), st.binary(min_size=1, max_size=6000))
def test_corrupted_bytes_are_never_returned(
    tmp_path_factory: pytest.TempPathFactory, images: list[LabelledImage], position: float, garbage: bytes
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    fill_cache(folder, images)
    data = data_file(folder)
    with data.open("r+b") as file:
        file.seek(int(position * data.stat().st_size))
        file.write(garbage)
    assert_cache_equals_files(folder, images)


FILL = """
import sys
from hashlib import sha256
from pathlib import Path
from dsmoe_core.data import lmdb_store
from dsmoe_core.data import letterbox_cache
from dsmoe_core.data.letterbox import LetterboxReader
from dsmoe_core.schema import ImageRecord
lmdb_store.COMMIT_BYTES = 1
cache = letterbox_cache.LetterboxCache(LetterboxReader(64), letterbox_cache.CacheConfig(Path(sys.argv[1])))
print("ready", flush=True)
for i in range(int(sys.argv[3])):
    key = sha256(f"{sys.argv[4]}{i}".encode()).hexdigest()
    cache.read(ImageRecord(key, "", Path(sys.argv[2]), 100, 80))
"""


def filling(folder: Path, image: Path, count: int, prefix: str) -> subprocess.Popen[str]:
    """Another process that writes one image after another."""
    command = [sys.executable, "-c", FILL, str(folder), str(image), str(count), prefix]
    return subprocess.Popen(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("written_bytes", [100_000, 700_000])
def test_killed_writer_leaves_a_usable_cache(
    tmp_path: Path, images: list[LabelledImage], written_bytes: int
) -> None:
    folder = tmp_path / "cache"
    with filling(folder, images[0].image.path, 1_000_000, "k") as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while data_file(folder).stat().st_size < written_bytes:
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
    assert_cache_equals_files(folder, images)
    cached = LetterboxCache(READER, CacheConfig(folder)).read(record("k0"))
    np.testing.assert_array_equal(cached, READER.read(images[0].image))


def test_processes_share_a_growing_cache(tmp_path: Path, images: list[LabelledImage]) -> None:
    folder, path = tmp_path / "cache", images[0].image.path
    expected = READER.read(images[0].image)
    with filling(folder, path, 40, "a") as first, filling(folder, path, 40, "a") as second:
        cache = LetterboxCache(READER, CacheConfig(folder))
        while first.poll() is None or second.poll() is None:
            np.testing.assert_array_equal(cache.read(record("a39", path)), expected)
            cache.flush()
        assert (first.returncode, second.returncode) == (0, 0)
    for i in range(40):
        np.testing.assert_array_equal(cache.read(record(f"a{i}")), expected)


def test_two_readers_in_one_process_share_a_cache(tmp_path: Path, images: list[LabelledImage]) -> None:
    first, second = (LetterboxCache(READER, CacheConfig(tmp_path / "cache")) for _ in range(2))
    first.read(images[0].image)
    first.flush()
    np.testing.assert_array_equal(second.read(without_files(images)[0]), READER.read(images[0].image))


def test_image_whose_key_is_not_a_content_hash_is_not_cached(
    tmp_path: Path, images: list[LabelledImage]
) -> None:
    """External images have their file names as keys, which images of other folders may share."""
    cache = LetterboxCache(READER, CacheConfig(tmp_path / "cache"))
    for labelled in images[:2]:
        image = replace(labelled.image, key="0001.png")
        np.testing.assert_array_equal(cache.read(image), READER.read(image))
        cache.flush()


def test_full_cache_stores_no_more_and_warns(
    tmp_path: Path, images: list[LabelledImage], caplog: pytest.LogCaptureFixture
) -> None:
    max_bytes = 100_000
    cache = LetterboxCache(READER, CacheConfig(tmp_path / "cache", max_bytes))
    for i in range(20):
        image = record(str(i), images[0].image.path)
        np.testing.assert_array_equal(cache.read(image), READER.read(image))
        cache.flush()
    assert [message.levelname for message in caplog.records] == ["WARNING"]
    assert data_file(tmp_path / "cache").stat().st_size <= max_bytes


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Limit the size of files, which looks like a full disk to the process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("free_bytes", [2_000, 40_000, 90_000])
def test_full_disk_is_an_error_and_leaves_an_intact_cache(
    tmp_path: Path, images: list[LabelledImage], free_bytes: int
) -> None:
    folder = tmp_path / "cache"
    with file_size_limit(free_bytes), pytest.raises(PrerequisiteError, match=str(folder)):
        fill_cache(folder, images)
    assert_cache_equals_files(folder, images)


def test_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(PrerequisiteError, match=str(tmp_path / "file")) as raised:
        LetterboxCache(READER, CacheConfig(tmp_path / "file"))
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.ENOTDIR


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5])
def test_gamma_follows_the_power_law_and_leaves_the_padding_unchanged(
    images: list[LabelledImage], gamma: float
) -> None:
    linear, transformed = (
        LetterboxReader(SIDE, Preprocessing(gamma=g)).read(images[0].image).astype(float)
        for g in (1.0, gamma)
    )
    rows = slice(7, 57)  # 100 x 80 becomes 64 x 51, centred
    assert np.abs(transformed[rows] - 255 * (linear[rows] / 255) ** gamma).max() <= 0.5 + 1e-9
    assert (transformed[:6] == 114).all()
    assert (transformed[58:] == 114).all()
