"""Tests of the owner mark in a project's description."""

from __future__ import annotations

import pytest

from annotate.studio.ownership import owner_of, select_project, with_owner
from dsmoe_core.errors import StudioError


def test_owner_mark_follows_the_users_text() -> None:
    text = with_owner("ab12", "Night shift, line 3.")
    assert text.startswith("Night shift, line 3. ")
    assert owner_of(text) == "ab12"
    assert owner_of(f"{text} Ask Ada.") == "ab12"
    assert (with_owner(""), with_owner("", "Line 3.")) == ("", "Line 3.")
    assert owner_of("Line 3 (workspace 7).") is None


@pytest.mark.parametrize(
    ("owners", "owner", "index"),
    [
        ([], "a", None),
        (["b", "a"], "a", 1),
        (["b", "", "a"], "a", 2),
        (["b", "", ""], "a", 1),
        (["b", "a"], "", 0),
    ],
)
def test_own_project_is_selected_before_one_without_owner(
    owners: list[str], owner: str, index: int | None
) -> None:
    assert select_project([with_owner(name) for name in owners], "boards", owner) == index


def test_project_of_another_owner_is_refused() -> None:
    with pytest.raises(StudioError, match=r"'boards' .* b; .* a"):
        select_project([with_owner("b"), with_owner("c")], "boards", "a")
