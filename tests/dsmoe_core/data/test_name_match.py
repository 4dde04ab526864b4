"""Matching of annotated names with images: exact names, other spellings, and what is ambiguous."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.data.name_match import match_names

NFD = unicodedata.normalize("NFD", "Größe/Prüfling.png")
IMAGES = (
    "a.png",
    "b/a.png",
    "b/c d.png",
    "b/Größe (1).png",
    unicodedata.normalize("NFC", "Größe/Prüfling.png"),
    "UPPER.JPG",
    "deep/er/x.png",
)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.png", "a.png"),
        ("./a.png", "a.png"),
        ("b/a.png", "b/a.png"),
        ("b\\a.png", "b/a.png"),
        (NFD, IMAGES[4]),
        ("b/c%20d.png", "b/c d.png"),
        ("/srv/photos/b/a.png", "b/a.png"),
        ("C:\\photos\\b\\c d.png", "b/c d.png"),
        ("D:/set/deep/er/x.png", "deep/er/x.png"),
        ("/anywhere/x.png", "deep/er/x.png"),
        ("../images/deep/er/x.png", "deep/er/x.png"),
        ("https://host/bucket/b/c%20d.png?token=1#x", "b/c d.png"),
        ("s3://bucket/set/deep/er/x.png", "deep/er/x.png"),
        ("file:///srv/set/UPPER.JPG", "UPPER.JPG"),
        ("/data/local-files/?d=set/b/c%20d.png", "b/c d.png"),
        ("/data/upload/3/1a2b3c4d-x.png", "deep/er/x.png"),
        ("images/1a2b3c4d-UPPER.JPG", "UPPER.JPG"),
        ("1a2b3c4d-c_d.png", "b/c d.png"),
        ("images\\1a2b3c4d-Größe_1.png", "b/Größe (1).png"),
        ("upper.jpg", "UPPER.JPG"),
        ("B/A.PNG", "b/a.png"),
        ("C:/set/upper.jpg", "UPPER.JPG"),
    ],
)
def test_name_fits_one_image(name: str, image: str) -> None:
    match = match_names([name], IMAGES)
    assert match.matched == {name: image}
    assert (match.ambiguous, match.missing) == ({}, ())


@pytest.mark.parametrize(
    "name",
    [
        "c d.png",  # relative to another folder: the same name in two folders is usual
        "train/a.png",
        "other/b/a.png",
        "x.png",
        "",
        "..",
        "/",
        "http://[",
        "1a2b3c4d-",
        "9a2b3c4-x.png",  # seven digits
        "/srv/c e.png",
        "board:a.png",
    ],
)
def test_name_fits_no_image(name: str) -> None:
    assert match_names([name], IMAGES).missing == (name,)


@pytest.mark.parametrize(
    ("name", "fitting"),
    [
        ("/srv/a.png", {"a.png", "b/a.png"}),
        ("https://host/a.png", {"a.png", "b/a.png"}),
        ("1a2b3c4d-a.png", {"a.png", "b/a.png"}),
    ],
)
def test_name_that_fits_two_images_is_left_out(name: str, fitting: set[str]) -> None:
    match = match_names([name], IMAGES)
    assert match.matched == {}
    assert set(match.ambiguous[name]) == fitting


def test_common_folder_of_absolute_names_decides() -> None:
    names = ["/srv/a.png", "/srv/b/a.png", "/srv/b/c d.png"]
    assert match_names(names, IMAGES).matched == dict(
        zip(names, ("a.png", "b/a.png", "b/c d.png"), strict=True)
    )


def test_two_names_for_one_image_are_ambiguous_unless_one_is_exact() -> None:
    both = match_names(["/x/train/x.png", "/x/val/x.png"], IMAGES)
    assert both.matched == {}
    assert set(both.ambiguous) == {"/x/train/x.png", "/x/val/x.png"}
    exact = match_names(["deep/er/x.png", "/x/val/x.png"], IMAGES)
    assert exact.matched == {"deep/er/x.png": "deep/er/x.png"}
    assert exact.ambiguous == {"/x/val/x.png": ("deep/er/x.png", "deep/er/x.png")}


def test_exact_names_that_differ_in_case_keep_their_images() -> None:
    match = match_names(["A.png", "a.png", "a.PNG"], ["a.png", "A.png"])
    assert match.matched == {"A.png": "A.png", "a.png": "a.png"}
    assert set(match.ambiguous["a.PNG"]) == {"a.png", "A.png"}


@pytest.mark.parametrize("name", ["images/a.png", "photos/images/a.png", "/data/photos/images/a.png"])
def test_name_that_begins_with_the_folder_of_images(name: str) -> None:
    images = ("a.png", "b/a.png")
    assert match_names([name], images, Path("/data/photos/images")).matched == {name: "a.png"}
    assert match_names(["val/a.png"], images, Path("/data/photos/images")).missing == ("val/a.png",)


PARTS = st.text(st.characters(exclude_characters="/\\", exclude_categories=("Cs",)), min_size=1, max_size=6)
PATHS = st.lists(PARTS.filter(lambda p: p not in (".", "..")), min_size=1, max_size=3).map("/".join)


@given(st.lists(PATHS, max_size=6, unique=True), st.lists(PATHS, max_size=6, unique=True))
def test_every_name_ends_in_one_place_and_no_image_is_used_twice(names: list[str], images: list[str]) -> None:
    match = match_names(names, images)
    ended = [*match.matched, *match.ambiguous, *match.missing]
    assert sorted(ended) == sorted(names)
    assert len(set(match.matched.values())) == len(match.matched)
    assert set(match.matched.values()) <= set(images)
    assert {n for n in names if n in images} == {n for n, i in match.matched.items() if n == i}


@given(
    st.lists(PATHS, min_size=1, max_size=6, unique_by=lambda p: unicodedata.normalize("NFC", p).casefold())
)
def test_names_below_one_root_are_all_found(images: list[str]) -> None:
    names = [f"/srv/of/the set/{image}" for image in images]
    match = match_names(names, images)
    if len(images) > 1:
        assert set(match.matched) | set(match.ambiguous) == set(names)
    assert all(name.endswith(image) for name, image in match.matched.items())
