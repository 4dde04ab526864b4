"""The cache gives what the files give, whatever happened to it; nothing old or torn is read."""

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
PLAIN = LetterboxReader(SIDE)


def filled(folder: Path, images: list[LabelledImage], squares: LetterboxReader = PLAIN) -> None:
    """A cache with all images in it, closed again."""
    cache = LetterboxCache(squares, CacheConfig(folder))
    for labelled in images:
        cache.read(labelled.image)
    cache.flush()


def data_file(folder: Path) -> Path:
    (found,) = folder.glob("*/data.mdb")
    return found


def assert_right(folder: Path, images: list[LabelledImage], squares: LetterboxReader = PLAIN) -> None:
    cache = LetterboxCache(squares, CacheConfig(folder))
    for labelled in images:
        np.testing.assert_array_equal(cache.read(labelled.image), squares.read(labelled.image))


def named(name: str, path: Path = Path("gone")) -> ImageRecord:
    """An image whose content is known by another name; without a file only a cache can show it."""
    return ImageRecord(sha256(name.encode()).hexdigest(), "", path, 100, 80)


def without_files(images: list[LabelledImage]) -> list[ImageRecord]:
    """The same images, whose files are gone: only a cache can show them."""
    return [ImageRecord(p.image.key, "", Path("gone"), 100, 80) for p in images]


def test_a_second_run_decodes_nothing(tmp_path: Path, images: list[LabelledImage]) -> None:
    filled(tmp_path / "cache", images)
    cache = LetterboxCache(PLAIN, CacheConfig(tmp_path / "cache"))
    for gone, labelled in zip(without_files(images), images, strict=True):
        np.testing.assert_array_equal(cache.read(gone), PLAIN.read(labelled.image))


@pytest.mark.parametrize(
    "other",
    [
        LetterboxReader(SIDE, Preprocessing(gamma=1.5)),
        LetterboxReader(SIDE, Preprocessing(resampling="bilinear")),
        LetterboxReader(96),
    ],
    ids=["gamma", "resampling", "side"],
)
def test_a_changed_setting_never_reads_an_old_cache(
    tmp_path: Path, images: list[LabelledImage], other: LetterboxReader
) -> None:
    folder = tmp_path / "cache"
    filled(folder, images)
    old = data_file(folder)
    assert_right(folder, images, other)
    (new,) = {path.parent for path in folder.glob("*/data.mdb")} - {old.parent}
    new.joinpath("data.mdb").write_bytes(old.read_bytes())  # not even where someone mixes them up
    assert_right(folder, images, other)
    assert_right(folder, images)


def test_changed_code_never_reads_an_old_cache_and_removes_it(
    tmp_path: Path, images: list[LabelledImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, images)
    (old,) = (path.parent for path in tmp_path.glob("*/data.mdb"))
    monkeypatch.setattr(letterbox_cache, "_MADE_BY", "other")
    cache = LetterboxCache(PLAIN, CacheConfig(tmp_path))
    with pytest.raises(FileNotFoundError):
        cache.read(without_files(images)[0])
    assert not old.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.9999])
def test_a_truncated_cache_is_found_out_and_made_anew(
    tmp_path: Path, images: list[LabelledImage], share: float, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache"
    filled(folder, images)
    data = data_file(folder)
    whole = data.stat().st_size
    with data.open("r+b") as file:
        file.truncate(int(whole * share))
    assert_right(folder, images)
    assert "was torn and is begun anew" in caplog.text
    filled(folder, images)
    test = LetterboxCache(PLAIN, CacheConfig(folder))
    assert [test.read(gone).shape for gone in without_files(images)] == [(SIDE, SIDE, 3)] * len(images)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.floats(0, 1), st.binary(min_size=1, max_size=6000))
def test_bytes_that_rotted_never_reach_a_training(
    tmp_path_factory: pytest.TempPathFactory, images: list[LabelledImage], at: float, rot: bytes
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    filled(folder, images)
    data = data_file(folder)
    with data.open("r+b") as file:
        file.seek(int(at * data.stat().st_size))
        file.write(rot)
    assert_right(folder, images)


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
    """Another process that writes square after square."""
    words = [sys.executable, "-c", FILL, str(folder), str(image), str(count), prefix]
    return subprocess.Popen(words, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("written_bytes", [100_000, 700_000])
def test_a_writer_killed_in_the_middle_does_no_harm(
    tmp_path: Path, images: list[LabelledImage], written_bytes: int
) -> None:
    folder = tmp_path / "cache"
    with filling(folder, images[0].image.path, 1_000_000, "k") as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while data_file(folder).stat().st_size < written_bytes:
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
    assert_right(folder, images)
    kept = LetterboxCache(PLAIN, CacheConfig(folder)).read(named("k0"))
    np.testing.assert_array_equal(kept, PLAIN.read(images[0].image))


def test_processes_share_a_cache_while_it_grows(tmp_path: Path, images: list[LabelledImage]) -> None:
    folder, path = tmp_path / "cache", images[0].image.path
    right = PLAIN.read(images[0].image)
    with filling(folder, path, 40, "a") as one, filling(folder, path, 40, "a") as two:
        cache = LetterboxCache(PLAIN, CacheConfig(folder))
        while one.poll() is None or two.poll() is None:
            np.testing.assert_array_equal(cache.read(named("a39", path)), right)
            cache.flush()
        assert (one.returncode, two.returncode) == (0, 0)
    for i in range(40):
        np.testing.assert_array_equal(cache.read(named(f"a{i}")), right)


def test_two_users_in_one_process_share_it(tmp_path: Path, images: list[LabelledImage]) -> None:
    one, two = (LetterboxCache(PLAIN, CacheConfig(tmp_path / "cache")) for _ in range(2))
    one.read(images[0].image)
    one.flush()
    np.testing.assert_array_equal(two.read(without_files(images)[0]), PLAIN.read(images[0].image))


def test_a_key_that_names_no_content_is_never_looked_up(tmp_path: Path, images: list[LabelledImage]) -> None:
    """Images judged where they lie go by their file names, which many folders share."""
    cache = LetterboxCache(PLAIN, CacheConfig(tmp_path / "cache"))
    for labelled in images[:2]:
        image = replace(labelled.image, key="0001.png")
        np.testing.assert_array_equal(cache.read(image), PLAIN.read(image))
        cache.flush()


def test_a_full_cache_takes_no_more_and_says_so(
    tmp_path: Path, images: list[LabelledImage], caplog: pytest.LogCaptureFixture
) -> None:
    bound = 100_000
    cache = LetterboxCache(PLAIN, CacheConfig(tmp_path / "cache", bound))
    for i in range(20):
        image = named(str(i), images[0].image.path)
        np.testing.assert_array_equal(cache.read(image), PLAIN.read(image))
        cache.flush()
    assert "has reached its bound" in caplog.text
    assert data_file(tmp_path / "cache").stat().st_size <= bound


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file may grow beyond this, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [2_000, 40_000, 90_000])
def test_a_full_disk_is_told_and_leaves_a_whole_cache(
    tmp_path: Path, images: list[LabelledImage], room: int
) -> None:
    folder = tmp_path / "cache"
    with files_of_at_most(room), pytest.raises(PrerequisiteError, match="disk full: the cache"):
        filled(folder, images)
    assert_right(folder, images)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(PrerequisiteError, match="cannot be used") as raised:
        LetterboxCache(PLAIN, CacheConfig(tmp_path / "file"))
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.ENOTDIR


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5])
def test_gamma_is_the_paper_s_curve_and_spares_the_padding(images: list[LabelledImage], gamma: float) -> None:
    plain, curved = (
        LetterboxReader(SIDE, Preprocessing(gamma=g)).read(images[0].image).astype(float)
        for g in (1.0, gamma)
    )
    rows = slice(7, 57)  # 100 x 80 becomes 64 x 51, centred
    assert np.abs(curved[rows] - 255 * (plain[rows] / 255) ** gamma).max() <= 0.5 + 1e-9
    assert (curved[:6] == 114).all()
    assert (curved[58:] == 114).all()
