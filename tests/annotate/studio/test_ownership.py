"""Whose a project is, by its description."""

from __future__ import annotations

import pytest

from annotate.studio.ownership import owner_of, select_project, with_owner
from dsmoe_core.errors import StudioError


def test_what_people_wrote_stays_in_front_of_the_mark() -> None:
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
def test_ours_comes_before_nobody_s(owners: list[str], owner: str, index: int | None) -> None:
    assert select_project([with_owner(one) for one in owners], "boards", owner) == index


def test_another_s_is_not_touched() -> None:
    with pytest.raises(StudioError, match="'boards' is another workspace's, b; this one is a"):
        select_project([with_owner("b"), with_owner("c")], "boards", "a")
