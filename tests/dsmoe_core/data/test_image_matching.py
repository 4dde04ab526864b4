"""Pairing of annotation entries with images: sizes, EXIF rotation, duplicates, and the account."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.decode import decode
from dsmoe_core.data.exif_boxes import TRANSPOSED, upright_box
from dsmoe_core.data.image_matching import MatchResult, match_images
from dsmoe_core.data.import_account import Conversion, ImportAccount, Reason
from dsmoe_core.schema import Annotation, Box, ImageRecord

BOX = Annotation(Box(2.0, 3.0, 12.0, 7.0), "spur")
OTHER = Annotation(Box(1.0, 1.0, 5.0, 6.0), "short")


def image(name: str, width: int = 40, height: int = 30, orientation: int = 1) -> ImageRecord:
    return ImageRecord(name, name, Path(name), width, height, orientation=orientation)


def entry(name: str, width: int = 40, height: int = 30, *boxes: Annotation) -> ImageAnnotations:
    return ImageAnnotations(name, width, height, boxes or (BOX,))


def labels(*entries: ImageAnnotations) -> AnnotationSet:
    boxes = sum(len(e.annotations) for e in entries)
    account = ImportAccount(len(entries), boxes, len(entries), boxes)
    return AnnotationSet(("spur", "short"), entries, account)


def left_out(match: MatchResult) -> dict[str, Reason]:
    assert match.account.is_balanced
    return {e.image: e.reason for e in match.account.entries}


def test_images_are_paired_by_name_in_their_own_order() -> None:
    match = match_images(
        labels(entry("a.png"), entry("b.png"), entry("gone.png")), map(image, ("b.png", "a.png", "new.png"))
    )
    assert [p.image.name for p in match.labelled] == ["b.png", "a.png"]
    assert match.missing == ("gone.png",)
    assert left_out(match) == {"gone.png": Reason.NO_IMAGE}
    assert match.account.images_without_labels == ("new.png",)
    assert (match.account.images_taken, match.account.boxes_left_out) == (2, 1)


@pytest.mark.parametrize(
    ("width", "height", "orientation"),
    [(80, 60, 1), (20, 15, 1), (30, 40, 1), (30, 40, 3), (41, 30, 6), (40, 31, 1)],
)
def test_entry_of_another_size_is_left_out_alone(width: int, height: int, orientation: int) -> None:
    images = (image("a.png", 40, 30, orientation), image("b.png"))
    match = match_images(labels(entry("a.png", width, height), entry("b.png")), images)
    assert [p.image.name for p in match.labelled] == ["b.png"]
    assert left_out(match) == {"a.png": Reason.WRONG_SIZE}
    (problem,) = match.account.entries
    assert f"{width}x{height}" in problem.detail
    assert "40x30" in problem.detail


@pytest.mark.parametrize("orientation", TRANSPOSED)
def test_entry_of_the_stored_size_is_turned(orientation: int) -> None:
    match = match_images(labels(entry("a.png", 30, 40)), [image("a.png", 40, 30, orientation)])
    ((labelled),) = match.labelled
    assert labelled.annotations[0].box == upright_box(BOX.box, orientation, 30, 40)
    assert labelled.annotations[0].box.inside(40, 30, tolerance=0)
    assert match.account.conversions == {Conversion.UPRIGHT: 1}
    assert match.account.images_turned == ("a.png",)
    assert left_out(match) == {}


def test_entry_of_the_upright_size_is_not_turned() -> None:
    match = match_images(labels(entry("a.png")), [image("a.png", orientation=6)])
    assert match.labelled[0].annotations == (BOX,)
    assert match.account.conversions == {}


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_size_of_other_images_decides_where_both_sizes_are_equal(orientation: int) -> None:
    flipped = image("flipped.png", orientation=orientation)
    stored = (entry("sideways.png", 30, 40), image("sideways.png", 40, 30, 6))
    upright = (entry("upright.png"), image("upright.png", 40, 30, 8))
    alone = match_images(labels(entry("flipped.png")), [flipped])
    assert alone.labelled[0].annotations == (BOX,)
    turned = match_images(labels(entry("flipped.png"), stored[0]), [flipped, stored[1]])
    assert turned.labelled[0].annotations[0].box == upright_box(BOX.box, orientation, 40, 30)
    kept = match_images(labels(entry("flipped.png"), upright[0]), [flipped, upright[1]])
    assert kept.labelled[0].annotations == (BOX,)
    mixed = match_images(
        labels(entry("flipped.png"), stored[0], upright[0]), [flipped, stored[1], upright[1]]
    )
    assert left_out(mixed) == {"flipped.png": Reason.UNCLEAR_ROTATION}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_box_is_where_the_pixels_are(tmp_path: Path, orientation: int) -> None:
    pixels = np.zeros((30, 40), np.uint8)
    pixels[3:7, 2:12] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    decoded = decode(tmp_path / "a.png", max_pixels=10_000)
    upright = pixels if decoded.converted is None else np.asarray(decoded.converted)[..., 0]
    ys, xs = np.nonzero(upright)
    expected = Box(float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
    assert upright_box(BOX.box, decoded.orientation, 40, 30) == expected


def test_entries_of_one_content_are_compared() -> None:
    images = [image("a.png"), image("b.png")]
    duplicates = {"a2.png": "a.png", "a3.png": "a.png", "b2.png": "b.png"}
    given = labels(
        entry("a2.png", 40, 30, OTHER), entry("a.png"), entry("a3.png"), entry("b2.png", 40, 30, OTHER)
    )
    match = match_images(given, images, duplicates=duplicates)
    assert {p.image.name: p.annotations for p in match.labelled} == {"a.png": (BOX,), "b.png": (OTHER,)}
    assert left_out(match) == {
        "a2.png": Reason.SAME_CONTENT_OTHER_BOXES,
        "a3.png": Reason.SAME_CONTENT,
    }
    assert {e.detail for e in match.account.entries} == {"a.png"}
    assert match.entry_names == {n: n for n in ("a.png", "a2.png", "a3.png", "b2.png")}


def test_unreadable_image_is_not_a_missing_one() -> None:
    match = match_images(labels(entry("a.png")), [], unreadable={"a.png": "it is empty"})
    assert left_out(match) == {"a.png": Reason.UNREADABLE_IMAGE}
    assert match.account.entries[0].detail == "it is empty"
    assert match.missing == ()


def test_unreadable_image_keeps_another_from_being_taken_for_it() -> None:
    match = match_images(labels(entry("/x/a.png")), [image("c/a.png")], unreadable={"b/a.png": "it is empty"})
    assert left_out(match) == {"/x/a.png": Reason.AMBIGUOUS_IMAGE}


def test_two_images_of_the_same_name_are_ambiguous() -> None:
    first, second = image("a.png"), ImageRecord("other", "a.png", Path("b"), 40, 30)
    match = match_images(labels(entry("a.png")), [first, second])
    assert match.labelled == ()
    assert left_out(match) == {"a.png": Reason.AMBIGUOUS_IMAGE}


NAMES = st.sampled_from(["a.png", "A.png", "b/a.png", "/x/b/a.png", "c.png", "1a2b3c4d-c.png", "gone.png"])
SIZES = st.sampled_from([(40, 30), (30, 40), (40, 40), (7, 7)])


@given(
    st.lists(st.tuples(NAMES, SIZES, st.integers(0, 3)), max_size=7, unique_by=lambda e: e[0]),
    st.lists(st.tuples(NAMES, SIZES, st.integers(1, 8)), max_size=7, unique_by=lambda e: e[0]),
    st.booleans(),
)
def test_every_entry_is_taken_or_left_out(
    entries: list[tuple[str, tuple[int, int], int]],
    images: list[tuple[str, tuple[int, int], int]],
    with_duplicates: bool,
) -> None:
    given_labels = labels(*(ImageAnnotations(n, *size, (OTHER,) * boxes) for n, size, boxes in entries))
    records = [image(n, *size, orientation) for n, size, orientation in images]
    duplicates = {r.name: records[0].name for r in records[2:]} if with_duplicates else {}
    match = match_images(given_labels, records[:2] if with_duplicates else records, duplicates=duplicates)
    assert match.account.is_balanced
    assert match.account.images_taken == len(match.labelled)
    assert len({p.image.name for p in match.labelled}) == len(match.labelled)
    for labelled in match.labelled:
        assert all(a.box.inside(labelled.image.width, labelled.image.height) for a in labelled.annotations)
