"""Facts of classes, measured on drawn images where they are known, and said in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dsmoe_core.errors import ImageError
from dsmoe_core.schema import Annotation, Box, ImageRecord, LabelledImage
from pipelines import cli
from pipelines.class_text.class_facts import ClassFacts, Quartiles, measure_classes
from pipelines.class_text.facts_text import facts_line
from pipelines.rounds.context import LoopContext
from pipelines.workspace.workspace import Workspace

PX = 120


def drawn(folder: Path, name: str, boxes: list[tuple[str, Box, int]], ground: int = 100) -> LabelledImage:
    """A plate with a filled block in each box."""
    grey = np.full((PX, PX), ground, dtype=np.uint8)
    for _, box, value in boxes:
        x1, y1, x2, y2 = map(int, box.corners)
        grey[y1:y2, x1:x2] = value
    path = folder / f"{name}.png"
    Image.fromarray(grey).save(path)
    found = tuple(Annotation(box, label) for label, box, _ in boxes)
    return LabelledImage(ImageRecord(name, name, path, PX, PX), found)


@pytest.fixture
def plates(tmp_path: Path) -> list[LabelledImage]:
    """Scratches: flat and dark, at the top left. Spots: square and bright, two in the centre."""
    images = []
    for i in range(4):
        scratch = ("scratch", Box(4 + i, 10, 34 + i, 14), 60)
        spots = [("spot", Box(45 + 12 * j, 55, 55 + 12 * j, 65), 130) for j in range(2)]
        images.append(drawn(tmp_path, f"p{i}", [scratch, *spots] if i < 2 else [scratch]))
    return [*images, drawn(tmp_path, "clean", [])]


def test_facts_are_what_was_drawn(plates: list[LabelledImage]) -> None:
    facts = measure_classes(plates, ["scratch", "spot", "dent"])
    scratch, spot = facts["scratch"], facts["spot"]
    assert (scratch.boxes, scratch.images, scratch.labelled_images) == (4, 4, 5)
    assert (spot.boxes, spot.images) == (4, 2)
    assert scratch.width == Quartiles(30, 30, 30)
    assert scratch.height == Quartiles(4, 4, 4)
    assert scratch.aspect == Quartiles(7.5, 7.5, 7.5)
    assert scratch.area_share == pytest.approx((120 / PX**2,) * 3)
    assert scratch.contrast == pytest.approx((-40, -40, -40))
    assert spot.contrast == pytest.approx((30, 30, 30))
    assert scratch.orientation == {"horizontal": 1.0}
    assert spot.orientation == {"no one direction": 1.0}
    assert scratch.place == {"top left": 1.0}
    assert spot.place == {"centre": 1.0}
    assert (scratch.at_edge, spot.at_edge) == (0, 0)
    assert (scratch.per_image, spot.per_image) == (Quartiles(1, 1, 1), Quartiles(2, 2, 2))


def test_facts_are_said_with_their_numbers(plates: list[LabelledImage]) -> None:
    facts = measure_classes(plates, ["scratch", "spot"])
    said = facts_line(facts["scratch"])
    for words in (
        "4 annotated boxes on 4 of 5 images, 1 on an image",
        "small, 30 x 4 px, 0.833 % of the image",
        "wider than high, width : height 7.5",
        "darker than around it, -40 of 255",
        "mostly horizontal, 100%",
        "mostly top left, 100% of the boxes; 0% touch",
    ):
        assert words in said
    assert "brighter than around it, +30 of 255" in facts_line(facts["spot"])
    assert "about as wide as high" in facts_line(facts["spot"])


def test_a_class_without_boxes_says_so(plates: list[LabelledImage]) -> None:
    facts = measure_classes(plates, ["scratch", "spot", "dent"])["dent"]
    assert facts == ClassFacts("dent", 0, 0, 5)
    assert facts_line(facts) == "no box of this class is annotated yet, so nothing was measured."
    assert measure_classes([], ["dent"])["dent"].labelled_images == 0


def test_what_differs_from_box_to_box_is_said_to(tmp_path: Path) -> None:
    boxes = [("spot", Box(20 * i, 50, 20 * i + 10 + i, 60), 40 if i % 2 else 160) for i in range(6)]
    said = facts_line(measure_classes([drawn(tmp_path, "p", boxes)], ["spot"])["spot"])
    assert "12.5 (11.2 to 13.8) x 10 px" in said
    assert "darker or brighter than around it" in said
    assert "spread over the image; 17% touch" in said


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=30))
@settings(deadline=None)
def test_quartiles_are_in_order_and_among_the_values(values: list[float]) -> None:
    low, middle, high = Quartiles.of(values)
    assert min(values) <= low <= middle <= high <= max(values)


def test_only_a_part_of_a_file_is_looked_at_where_that_is_the_image(tmp_path: Path) -> None:
    whole = drawn(tmp_path, "p", [("spot", Box(70, 70, 80, 80), 150)])
    part = ImageRecord("t", "t", whole.image.path, 60, 60, region=(60, 60, 120, 120))
    tile = LabelledImage(part, (Annotation(Box(10, 10, 20, 20), "spot"),))
    assert measure_classes([tile], ["spot"])["spot"].contrast == pytest.approx((50, 50, 50))


def test_a_image_that_is_gone_is_named(plates: list[LabelledImage]) -> None:
    plates[0].image.path.unlink()
    with pytest.raises(ImageError, match="image p0 cannot be read"):
        measure_classes(plates, ["scratch", "spot"])


def test_the_command_shows_them_and_says_where_there_are_none(
    context: LoopContext, workspace: Workspace, label: object, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.rounds.loop import close_round, open_round

    assert cli.run(["classes", "facts", str(workspace.path)]) == 0
    assert "Nothing is annotated yet" in capsys.readouterr().out
    open_round(context)
    label(context)  # type: ignore[operator]
    close_round(context)
    assert cli.run(["classes", "facts", str(workspace.path)]) == 0
    shown = capsys.readouterr().out
    boxes = [len(h.annotations) for h in workspace.journal.harvests().values()]
    cells = [row.split("│")[2].strip() for row in shown.splitlines() if row.startswith("│ ")]
    assert sum(int(cell) for cell in cells if cell) == sum(boxes) > 0
    assert "Nothing" not in shown
