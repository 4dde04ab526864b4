"""Dataset versions: identified by their content, immutable, with boxes inside their images."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.errors import BoxError, ClassBookError, WorkspaceError
from dsmoe_core.schema import Annotation, Box, ClassText, ImageRecord, LabelledImage, Vocabulary
from pipelines.workspace.dataset_version import DatasetVersion

VOCABULARY = Vocabulary((ClassText("spur", "a spur"), ClassText("short", "a short")), version="book1")


def labelled(key: str, *boxes: tuple[float, float, float, float], label: str = "spur") -> LabelledImage:
    image = ImageRecord(key, f"{key}.png", Path(f"/w/{key}.png"), 40, 30)
    return LabelledImage(image, tuple(Annotation(Box(*map(float, b)), label) for b in boxes))


CORNERS = st.tuples(st.floats(0, 18), st.floats(0, 13), st.floats(20, 40), st.floats(15, 30))


@given(st.lists(st.lists(CORNERS, max_size=4), min_size=1, max_size=4), st.randoms())
def test_order_of_images_and_boxes_does_not_change_the_id(boxes, random) -> None:  # type: ignore[no-untyped-def]
    images = [labelled(f"k{i}", *of_image) for i, of_image in enumerate(boxes)]
    shuffled = [
        LabelledImage(p.image, tuple(random.sample(p.annotations, len(p.annotations))))
        for p in random.sample(images, len(images))
    ]
    assert DatasetVersion.of(images, VOCABULARY) == DatasetVersion.of(shuffled, VOCABULARY)


def test_every_change_of_the_content_changes_the_id() -> None:
    base = [labelled("a", (0, 0, 5, 5))]
    ids = {
        DatasetVersion.of(base, VOCABULARY).id,
        DatasetVersion.of(base, VOCABULARY, parent="p").id,
        DatasetVersion.of(base, VOCABULARY, test_set="t").id,
        DatasetVersion.of([labelled("a", (0, 0, 5, 6))], VOCABULARY).id,
        DatasetVersion.of([labelled("b", (0, 0, 5, 5))], VOCABULARY).id,
        DatasetVersion.of([labelled("a", (0, 0, 5, 5), label="short")], VOCABULARY).id,
    }
    assert len(ids) == 6


def test_version_is_read_as_it_was_written(tmp_path: Path) -> None:
    first = labelled("a", (0, 0, 5.25, 5))
    version = DatasetVersion.of([first, labelled("b")], VOCABULARY)
    version.save(tmp_path)
    loaded = DatasetVersion.load(tmp_path, version.id)
    assert loaded == version
    assert loaded.boxes == 1
    images = {p.image.key: p.image for p in (first, labelled("b"))}
    assert loaded.labelled(images) == [first, labelled("b")]
    with pytest.raises(WorkspaceError, match=r"1 image.*b\.png"):
        loaded.labelled({"a": first.image})


def test_edited_manifest_is_refused(tmp_path: Path) -> None:
    version = DatasetVersion.of([labelled("a", (0, 0, 5, 5))], VOCABULARY)
    path = version.save(tmp_path)
    path.write_text(path.read_text().replace('"spur"}', '"short"}'))
    with pytest.raises(WorkspaceError, match=version.id):
        DatasetVersion.load(tmp_path, version.id)
    path.write_text("{")
    with pytest.raises(WorkspaceError, match=version.id):
        DatasetVersion.load(tmp_path, version.id)
    with pytest.raises(WorkspaceError, match="nowhere"):
        DatasetVersion.load(tmp_path, "nowhere")


def test_boxes_are_clipped_to_their_image_or_refused() -> None:
    over = DatasetVersion.of([labelled("a", (-0.5, 0, 40.5, 30))], VOCABULARY)
    assert over.train[0].boxes[0].box == (0, 0, 40, 30)
    for outside in ((0, 0, 60, 5), (-0.9, 0, -0.1, 5), (39.9999, 0, 40.5, 9)):
        with pytest.raises(BoxError, match=r"a\.png.* 40 x 30"):
            DatasetVersion.of([labelled("a", outside)], VOCABULARY)


def test_class_that_is_not_in_the_class_book_is_refused() -> None:
    with pytest.raises(ClassBookError, match="'crack'"):
        DatasetVersion.of([labelled("a", (0, 0, 5, 5), label="crack")], VOCABULARY)
