"""A folder that is replaced as a whole, and only where nothing else is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmoe_core.atomic import atomic_folder
from dsmoe_core.errors import WorkspaceError

OURS = ("page", "more")


def write(target: Path, text: str) -> None:
    with atomic_folder(target, OURS) as draft:
        (draft / "page").write_text(text)
        (draft / "more").mkdir()
        (draft / "more" / text).touch()


def holds(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_second_takes_the_place_of_the_first_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "new" / "report"
    for text in ("first", "second"):
        write(target, text)
        assert holds(target) == {"page", "more", f"more/{text}"}
        assert [path.name for path in target.parent.iterdir()] == ["report"]


def test_a_failure_leaves_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "report"
    write(target, "first")

    def interrupted() -> None:
        with atomic_folder(target, OURS) as draft:
            (draft / "page").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert holds(target) == {"page", "more", "more/first"}
    assert (target / "page").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_failure_of_the_last_step_brings_the_old_one_back(
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


def test_what_is_not_ours_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "only-copy.jpg").touch()
    with pytest.raises(WorkspaceError, match=r"only-copy\.jpg, which would be lost"):
        write(precious, "text")
    with pytest.raises(WorkspaceError, match="not a folder"):
        write(precious / "only-copy.jpg", "text")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(WorkspaceError, match="present folder"):
        write(Path(), "text")
    assert holds(precious) == {"only-copy.jpg"}
