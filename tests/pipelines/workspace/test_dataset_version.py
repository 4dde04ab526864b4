"""Dataset versions: named by their content, immutable, free of what no person said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.errors import BoxError, ClassBookError, WorkspaceError
from dsmoe_core.schema import Annotation, Box, ClassText, ImageRecord, LabelledImage, Vocabulary
from pipelines.workspace.dataset_version import DatasetVersion

WORDS = Vocabulary((ClassText("spur", "a spur"), ClassText("short", "a short")), version="book1")


def labelled(key: str, *boxes: tuple[float, float, float, float], label: str = "spur") -> LabelledImage:
    image = ImageRecord(key, f"{key}.png", Path(f"/w/{key}.png"), 40, 30)
    return LabelledImage(image, tuple(Annotation(Box(*map(float, b)), label) for b in boxes))


CORNERS = st.tuples(st.floats(0, 18), st.floats(0, 13), st.floats(20, 40), st.floats(15, 30))


@given(st.lists(st.lists(CORNERS, max_size=4), min_size=1, max_size=4), st.randoms())
def test_the_order_of_images_and_boxes_does_not_change_the_id(boxes, random) -> None:  # type: ignore[no-untyped-def]
    images = [labelled(f"k{i}", *some) for i, some in enumerate(boxes)]
    shuffled = [
        LabelledImage(p.image, tuple(random.sample(p.annotations, len(p.annotations))))
        for p in random.sample(images, len(images))
    ]
    assert DatasetVersion.of(images, WORDS) == DatasetVersion.of(shuffled, WORDS)


def test_whatever_changes_the_content_changes_the_id() -> None:
    base = [labelled("a", (0, 0, 5, 5))]
    ids = {
        DatasetVersion.of(base, WORDS).id,
        DatasetVersion.of(base, WORDS, parent="p").id,
        DatasetVersion.of(base, WORDS, test_set="t").id,
        DatasetVersion.of([labelled("a", (0, 0, 5, 6))], WORDS).id,
        DatasetVersion.of([labelled("b", (0, 0, 5, 5))], WORDS).id,
        DatasetVersion.of([labelled("a", (0, 0, 5, 5), label="short")], WORDS).id,
    }
    assert len(ids) == 6


def test_it_comes_back_from_its_file_with_the_workspaces_images(tmp_path: Path) -> None:
    one = labelled("a", (0, 0, 5.25, 5))
    version = DatasetVersion.of([one, labelled("b")], WORDS)
    version.save(tmp_path)
    again = DatasetVersion.load(tmp_path, version.id)
    assert again == version
    assert again.boxes == 1
    images = {p.image.key: p.image for p in (one, labelled("b"))}
    assert again.labelled(images) == [one, labelled("b")]
    with pytest.raises(WorkspaceError, match=r"1 image\(s\) that the workspace lacks, such as b\.png"):
        again.labelled({"a": one.image})


def test_a_manifest_that_was_edited_is_refused(tmp_path: Path) -> None:
    version = DatasetVersion.of([labelled("a", (0, 0, 5, 5))], WORDS)
    path = version.save(tmp_path)
    path.write_text(path.read_text().replace('"spur"}', '"short"}'))
    with pytest.raises(WorkspaceError, match="was changed"):
        DatasetVersion.load(tmp_path, version.id)
    path.write_text("{")
    with pytest.raises(WorkspaceError, match="no dataset version"):
        DatasetVersion.load(tmp_path, version.id)
    with pytest.raises(WorkspaceError, match="nowhere is not in"):
        DatasetVersion.load(tmp_path, "nowhere")


def test_boxes_stay_inside_their_image() -> None:
    over = DatasetVersion.of([labelled("a", (-0.5, 0, 40.5, 30))], WORDS)
    assert over.train[0].boxes[0].box == (0, 0, 40, 30)
    for outside in ((0, 0, 60, 5), (-0.9, 0, -0.1, 5), (39.9999, 0, 40.5, 9)):
        with pytest.raises(BoxError, match=r"outside its image a\.png, which is 40 x 30"):
            DatasetVersion.of([labelled("a", outside)], WORDS)


def test_a_class_that_the_class_book_lacks_is_refused() -> None:
    with pytest.raises(ClassBookError, match="'crack' is not in the class book"):
        DatasetVersion.of([labelled("a", (0, 0, 5, 5), label="crack")], WORDS)
