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
from dsmoe_core.data.letterbox import Squares
from dsmoe_core.data.letterbox_cache import PictureCache, SquareCache
from dsmoe_core.errors import PrerequisiteError
from dsmoe_core.schema import LabelledPicture, Picture

SIDE = 64
ROOT = Path(__file__).resolve().parents[3]
PLAIN = Squares(SIDE)


def filled(folder: Path, pictures: list[LabelledPicture], squares: Squares = PLAIN) -> None:
    """A cache with all pictures in it, closed again."""
    cache = SquareCache(squares, PictureCache(folder))
    for labelled in pictures:
        cache.read(labelled.picture)
    cache.flush()


def data_file(folder: Path) -> Path:
    (found,) = folder.glob("*/data.mdb")
    return found


def assert_right(folder: Path, pictures: list[LabelledPicture], squares: Squares = PLAIN) -> None:
    cache = SquareCache(squares, PictureCache(folder))
    for labelled in pictures:
        np.testing.assert_array_equal(cache.read(labelled.picture), squares.read(labelled.picture))


def named(name: str, path: Path = Path("gone")) -> Picture:
    """A picture whose content is known by another name; without a file only a cache can show it."""
    return Picture(sha256(name.encode()).hexdigest(), "", path, 100, 80)


def without_files(pictures: list[LabelledPicture]) -> list[Picture]:
    """The same pictures, whose files are gone: only a cache can show them."""
    return [Picture(p.picture.key, "", Path("gone"), 100, 80) for p in pictures]


def test_a_second_run_decodes_nothing(tmp_path: Path, pictures: list[LabelledPicture]) -> None:
    filled(tmp_path / "cache", pictures)
    cache = SquareCache(PLAIN, PictureCache(tmp_path / "cache"))
    for gone, labelled in zip(without_files(pictures), pictures, strict=True):
        np.testing.assert_array_equal(cache.read(gone), PLAIN.read(labelled.picture))


@pytest.mark.parametrize(
    "other",
    [
        Squares(SIDE, Preprocessing(gamma=1.5)),
        Squares(SIDE, Preprocessing(resampling="bilinear")),
        Squares(96),
    ],
    ids=["gamma", "resampling", "side"],
)
def test_a_changed_setting_never_reads_an_old_cache(
    tmp_path: Path, pictures: list[LabelledPicture], other: Squares
) -> None:
    folder = tmp_path / "cache"
    filled(folder, pictures)
    old = data_file(folder)
    assert_right(folder, pictures, other)
    (new,) = {path.parent for path in folder.glob("*/data.mdb")} - {old.parent}
    new.joinpath("data.mdb").write_bytes(old.read_bytes())  # not even where someone mixes them up
    assert_right(folder, pictures, other)
    assert_right(folder, pictures)


def test_changed_code_never_reads_an_old_cache_and_removes_it(
    tmp_path: Path, pictures: list[LabelledPicture], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, pictures)
    (old,) = (path.parent for path in tmp_path.glob("*/data.mdb"))
    monkeypatch.setattr(letterbox_cache, "_MADE_BY", "other")
    cache = SquareCache(PLAIN, PictureCache(tmp_path))
    with pytest.raises(FileNotFoundError):
        cache.read(without_files(pictures)[0])
    assert not old.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.9999])
def test_a_truncated_cache_is_found_out_and_made_anew(
    tmp_path: Path, pictures: list[LabelledPicture], share: float, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache"
    filled(folder, pictures)
    data = data_file(folder)
    whole = data.stat().st_size
    with data.open("r+b") as file:
        file.truncate(int(whole * share))
    assert_right(folder, pictures)
    assert "was torn and is begun anew" in caplog.text
    filled(folder, pictures)
    test = SquareCache(PLAIN, PictureCache(folder))
    assert [test.read(gone).shape for gone in without_files(pictures)] == [(SIDE, SIDE, 3)] * len(pictures)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.floats(0, 1), st.binary(min_size=1, max_size=6000))
def test_bytes_that_rotted_never_reach_a_training(
    tmp_path_factory: pytest.TempPathFactory, pictures: list[LabelledPicture], at: float, rot: bytes
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    filled(folder, pictures)
    data = data_file(folder)
    with data.open("r+b") as file:
        file.seek(int(at * data.stat().st_size))
        file.write(rot)
    assert_right(folder, pictures)


FILL = """
import sys
from hashlib import sha256
from pathlib import Path
from dsmoe_core.data import store
from dsmoe_core.data import letterbox_cache
from dsmoe_core.data.letterbox import Squares
from dsmoe_core.schema import Picture
store.COMMIT_BYTES = 1
cache = letterbox_cache.SquareCache(Squares(64), letterbox_cache.PictureCache(Path(sys.argv[1])))
print("ready", flush=True)
for i in range(int(sys.argv[3])):
    key = sha256(f"{sys.argv[4]}{i}".encode()).hexdigest()
    cache.read(Picture(key, "", Path(sys.argv[2]), 100, 80))
"""


def filling(folder: Path, picture: Path, count: int, prefix: str) -> subprocess.Popen[str]:
    """Another process that writes square after square."""
    words = [sys.executable, "-c", FILL, str(folder), str(picture), str(count), prefix]
    return subprocess.Popen(words, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("written_bytes", [100_000, 700_000])
def test_a_writer_killed_in_the_middle_does_no_harm(
    tmp_path: Path, pictures: list[LabelledPicture], written_bytes: int
) -> None:
    folder = tmp_path / "cache"
    with filling(folder, pictures[0].picture.path, 1_000_000, "k") as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while data_file(folder).stat().st_size < written_bytes:
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
    assert_right(folder, pictures)
    kept = SquareCache(PLAIN, PictureCache(folder)).read(named("k0"))
    np.testing.assert_array_equal(kept, PLAIN.read(pictures[0].picture))


def test_processes_share_a_cache_while_it_grows(tmp_path: Path, pictures: list[LabelledPicture]) -> None:
    folder, path = tmp_path / "cache", pictures[0].picture.path
    right = PLAIN.read(pictures[0].picture)
    with filling(folder, path, 40, "a") as one, filling(folder, path, 40, "a") as two:
        cache = SquareCache(PLAIN, PictureCache(folder))
        while one.poll() is None or two.poll() is None:
            np.testing.assert_array_equal(cache.read(named("a39", path)), right)
            cache.flush()
        assert (one.returncode, two.returncode) == (0, 0)
    for i in range(40):
        np.testing.assert_array_equal(cache.read(named(f"a{i}")), right)


def test_two_users_in_one_process_share_it(tmp_path: Path, pictures: list[LabelledPicture]) -> None:
    one, two = (SquareCache(PLAIN, PictureCache(tmp_path / "cache")) for _ in range(2))
    one.read(pictures[0].picture)
    one.flush()
    np.testing.assert_array_equal(two.read(without_files(pictures)[0]), PLAIN.read(pictures[0].picture))


def test_a_key_that_names_no_content_is_never_looked_up(
    tmp_path: Path, pictures: list[LabelledPicture]
) -> None:
    """Pictures judged where they lie go by their file names, which many folders share."""
    cache = SquareCache(PLAIN, PictureCache(tmp_path / "cache"))
    for labelled in pictures[:2]:
        picture = replace(labelled.picture, key="0001.png")
        np.testing.assert_array_equal(cache.read(picture), PLAIN.read(picture))
        cache.flush()


def test_a_full_cache_takes_no_more_and_says_so(
    tmp_path: Path, pictures: list[LabelledPicture], caplog: pytest.LogCaptureFixture
) -> None:
    bound = 100_000
    cache = SquareCache(PLAIN, PictureCache(tmp_path / "cache", bound))
    for i in range(20):
        picture = named(str(i), pictures[0].picture.path)
        np.testing.assert_array_equal(cache.read(picture), PLAIN.read(picture))
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
    tmp_path: Path, pictures: list[LabelledPicture], room: int
) -> None:
    folder = tmp_path / "cache"
    with files_of_at_most(room), pytest.raises(PrerequisiteError, match="disk full: the cache"):
        filled(folder, pictures)
    assert_right(folder, pictures)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(PrerequisiteError, match="cannot be used") as raised:
        SquareCache(PLAIN, PictureCache(tmp_path / "file"))
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.ENOTDIR


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5])
def test_gamma_is_the_paper_s_curve_and_spares_the_padding(
    pictures: list[LabelledPicture], gamma: float
) -> None:
    plain, curved = (
        Squares(SIDE, Preprocessing(gamma=g)).read(pictures[0].picture).astype(float) for g in (1.0, gamma)
    )
    rows = slice(7, 57)  # 100 x 80 becomes 64 x 51, centred
    assert np.abs(curved[rows] - 255 * (plain[rows] / 255) ** gamma).max() <= 0.5 + 1e-9
    assert (curved[:6] == 114).all()
    assert (curved[58:] == 114).all()
