"""Atomic replacement of files and folders, and protection of other files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmoe_core.atomic import atomic_folder, atomic_write
from dsmoe_core.errors import WorkspaceError

REPLACEABLE = ("page", "more")


def write(target: Path, text: str) -> None:
    with atomic_folder(target, REPLACEABLE) as draft:
        (draft / "page").write_text(text)
        (draft / "more").mkdir()
        (draft / "more" / text).touch()


def content_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("content", "stored"), [("n\u00e4he\n", b"n\xc3\xa4he\n"), (b"\x00\r\n", b"\x00\r\n")]
)
def test_file_has_the_text_in_utf8_or_the_bytes(tmp_path: Path, content: str | bytes, stored: bytes) -> None:
    path = tmp_path / "new" / "file"
    atomic_write(path, "an earlier and longer content")
    atomic_write(path, content)
    assert path.read_bytes() == stored
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_keeps_the_old_file_and_leaves_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    atomic_write(path, "old")

    def broken(source: Path, target: Path) -> None:
        raise PermissionError(source, target)

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(PermissionError):
        atomic_write(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_second_write_replaces_the_first_without_leftovers(tmp_path: Path) -> None:
    target = tmp_path / "new" / "report"
    for text in ("first", "second"):
        write(target, text)
        assert content_of(target) == {"page", "more", f"more/{text}"}
        assert [path.name for path in target.parent.iterdir()] == ["report"]


def test_failure_keeps_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "report"
    write(target, "first")

    def interrupted() -> None:
        with atomic_folder(target, REPLACEABLE) as draft:
            (draft / "page").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert content_of(target) == {"page", "more", "more/first"}
    assert (target / "page").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_failure_of_the_last_rename_restores_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report"
    write(target, "first")
    rename = Path.rename

    def broken(self: Path, other: Path) -> Path:
        if other == target and self.name.endswith(".tmp"):
            raise PermissionError(13, "no")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(PermissionError):
        write(target, "second")
    assert (target / "page").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_folder_with_other_files_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "only-copy.jpg").touch()
    with pytest.raises(WorkspaceError, match=r"only-copy\.jpg"):
        write(photos, "text")
    with pytest.raises(WorkspaceError, match=r"only-copy\.jpg"):
        write(photos / "only-copy.jpg", "text")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(WorkspaceError, match="here"):
        write(Path(), "text")
    assert content_of(photos) == {"only-copy.jpg"}
