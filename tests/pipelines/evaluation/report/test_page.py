"""The page: it holds everything, asks nobody for anything, and has words for what is empty."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scenes import CLASSES, SIDE, Scene, found, labelled, random_scene

from dsmoe_core.errors import PrerequisiteError, WorkspaceError
from dsmoe_core.evaluation.bootstrap import resample_counts
from dsmoe_core.evaluation.matching import ImageMatches, match_images
from dsmoe_core.evaluation.metrics import compute_metrics, evaluation_tables
from dsmoe_core.schema import Box, ImageRecord, LabelledImage
from pipelines.evaluation.report import page
from pipelines.evaluation.report.worst import COLOURS, FALSE, FOUND, MISSED, RIGHT, draw, loss, worst

BOX = Box(20, 20, 80, 80)


def on_disk(scene: Scene, folder: Path) -> Scene:
    """The same scene with grey images that can be drawn on."""
    path = folder / "grey.png"
    Image.new("L", (SIDE, SIDE), 128).save(path)
    truth = [
        LabelledImage(ImageRecord(p.image.key, p.image.name, path, SIDE, SIDE), p.annotations)
        for p in scene[1]
    ]
    return scene[0], truth


def measured(
    scene: Scene, classes: tuple[str, ...] = CLASSES, **data: Any
) -> tuple[dict[str, Any], list[tuple[ImageMatches, dict[str, Any]]]]:
    counts = resample_counts(len(scene[1]), 20, 0)
    one = evaluation_tables(*scene, classes, counts, lambda done, total: None)
    body = compute_metrics(one, counts, given=0.3, seed=0)
    shown = worst(one.matched, body["threshold"])
    head = {
        "command": "dsmoe evaluate",
        "date": "2026-01-01",
        "seed": 0,
        "resamples": 20,
        "model": {"name": "r1", "class_book": "b"},
        "data": {"name": "val", "annotations": "a", "images": "i", "left_out": [], "notes": [], **data},
    }
    return head | body | {"worst": [said for _, said in shown]}, shown


class Reader(HTMLParser):
    """Collects addresses, texts, and tags that were opened and not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def read(folder: Path) -> Reader:
    reader = Reader()
    reader.feed((folder / "report.html").read_text(encoding="utf-8"))
    reader.text = " ".join(reader.text.split())
    return reader


def test_a_report_holds_its_images_and_charts_and_names_no_other_place(tmp_path: Path) -> None:
    answer, shown = measured(on_disk(random_scene(1), tmp_path))
    page.write(tmp_path / "out", answer, shown)
    reader = read(tmp_path / "out")
    assert len(shown) == len(list((tmp_path / "out" / "worst").iterdir())) > 3
    assert len(reader.addresses) == len(shown) + len(CLASSES) + 1
    assert all(address.startswith("data:image/") for address in reader.addresses)
    for address in reader.addresses:
        content = base64.b64decode(address.partition(",")[2])
        if address.startswith("data:image/svg"):
            assert content.startswith(b"<svg ")
            assert b"<script" not in content
            assert b"url(http" not in content
    assert not {"script", "link", "iframe", "base"} & set(reader.tags)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == answer


def test_the_same_figures_give_the_same_page(tmp_path: Path) -> None:
    for name in ("a", "b"):
        page.write(tmp_path / name, *measured(on_disk(random_scene(1), tmp_path)))
    assert (tmp_path / "a" / "report.html").read_bytes() == (tmp_path / "b" / "report.html").read_bytes()


def test_figures_stand_on_it_as_they_are_in_the_json(tmp_path: Path) -> None:
    answer, shown = measured(on_disk(random_scene(1), tmp_path))
    row = {"this": 0.5, "other": 0.25, "delta": 0.25, "ci95": [0.125, 0.375], "p": 0.0625}
    answer["against"] = {"name": "r0", "class_book": "b", "figures": {"map50": row, "map": row}}
    page.write(tmp_path / "out", answer, shown)
    text = read(tmp_path / "out").text
    for key in ("map", "map50"):
        assert f"{answer['total'][key]:.3f}" in text
    for row in answer["classes"]:
        assert f"{row['name']} {row['boxes']} {row['detections']} {row['map']:.3f}" in text
    assert "+0.250 +0.125 to +0.375 0.062" in text


EMPTY: dict[str, tuple[Scene, str]] = {
    "no true box": (({"p": found("p", (BOX, "spur", 0.9))}, [labelled("p")]), "There is no true box"),
    "no detection": (({}, [labelled("p", (BOX, "spur"))]), "The model found nothing"),
    "neither": (({}, [labelled("p")]), "No image loses anything"),
    "nothing right": (
        ({"p": found("p", (BOX, "hole", 0.9))}, [labelled("p", (BOX, "spur"))]),
        "No detection is right",
    ),
    "a class that never occurs": (
        ({"p": found("p", (BOX, "spur", 0.9))}, [labelled("p", (BOX, "spur"))]),
        "Without a true box here, and so in no mean: short, hole.",
    ),
}


@pytest.mark.parametrize("case", EMPTY)
def test_what_is_empty_is_said(case: str, tmp_path: Path) -> None:
    scene, words = EMPTY[case]
    page.write(tmp_path / "out", *measured(on_disk(scene, tmp_path)))
    text = read(tmp_path / "out").text
    assert words in text
    assert "nan" not in text.lower().split()
    assert "None" not in text


def test_images_that_could_not_be_read_are_named(tmp_path: Path) -> None:
    left = [{"name": f"torn{i}.png", "reason": "it is damaged", "boxes": 1} for i in range(25)]
    scene = on_disk(random_scene(1, images=5), tmp_path)
    page.write(tmp_path / "out", *measured(scene, left_out=left, notes=["3 crowd regions left out"]))
    text = read(tmp_path / "out").text
    assert "25 of 30 annotated images could not be read. They, and the 25 boxes on them" in text
    assert "torn19.png (1 box): it is damaged and 5 more" in text
    assert "3 crowd regions left out" in text


def test_names_from_outside_stay_text(tmp_path: Path) -> None:
    bad = "<script>alert('$x$')</script> 欠陥"
    scene = ({"p": found("p", (BOX, bad, 0.9))}, [labelled("p", (BOX, bad), (Box(0, 0, 9, 9), bad))])
    page.write(tmp_path / "out", *measured(on_disk(scene, tmp_path), classes=(bad,), name=bad))
    reader = read(tmp_path / "out")
    assert "script" not in reader.tags
    assert bad in reader.text


def test_a_folder_of_something_else_and_a_missing_package_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(WorkspaceError, match=r"thesis\.tex"):
        page.check(tmp_path)
    page.check(tmp_path / "new")
    monkeypatch.setattr(page, "find_spec", lambda name: None if name == "matplotlib" else object())
    with pytest.raises(PrerequisiteError, match=r"matplotlib is not installed.*dsmoe\[report\]"):
        page.check(tmp_path / "new")


def test_the_worst_images_lose_most_whatever_the_threshold() -> None:
    detections, truth = random_scene(4, images=30)
    matched = match_images(detections, truth)
    shown = worst(matched, 0.5)
    losses = [loss(p) for p, _ in shown]
    assert len(shown) == 12
    assert losses == sorted((loss(p) for p in matched), reverse=True)[:12]
    assert len({said["file"] for _, said in shown}) == 12


def test_a_loss_by_hand() -> None:
    far, other = Box(100, 100, 150, 150), Box(0, 0, 9, 9)
    rows = found("p", (BOX, "spur", 0.75), (far, "spur", 0.5))
    (image,) = match_images({"p": rows}, [labelled("p", (BOX, "spur"), (other, "spur"))])
    assert loss(image) == pytest.approx(0.25 + 1 + 0.5)


def test_found_missed_right_and_false_have_colours_of_their_own(tmp_path: Path) -> None:
    boxes = [
        Box(20 + 90 * (i % 2), 30 + 90 * (i // 2), 70 + 90 * (i % 2), 80 + 90 * (i // 2)) for i in range(3)
    ]
    rows = found("p", (boxes[0], "spur", 0.9), (boxes[1], "spur", 0.8))
    scene = on_disk(({"p": rows}, [labelled("p", (boxes[0], "spur"), (boxes[2], "spur"))]), tmp_path)
    (image,) = match_images(*scene)
    (tmp_path / "drawn.jpg").write_bytes(draw(image, 0.5))
    with Image.open(tmp_path / "drawn.jpg") as opened:
        scale = opened.width / SIDE
        assert scale == 4
        counts = [
            colours(opened.crop(tuple(int(scale * v) for v in (b.x1 - 2, b.y1 - 12, b.x2, b.y2 + 12))))
            for b in boxes
        ]
    assert [RIGHT in counts[0], FOUND in counts[0]] == [True, True]
    assert counts[1] == {FALSE}
    assert counts[2] == {MISSED}
    (tmp_path / "drawn.jpg").write_bytes(draw(image, 0.85))
    with Image.open(tmp_path / "drawn.jpg") as opened:
        assert FALSE not in colours(opened)


def colours(image: Image.Image) -> set[str]:
    """Which of the four are seen, in spite of the JPEG."""
    seen = [colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []]
    names = set()
    for name, text in COLOURS.items():
        wanted = [int(text[i : i + 2], 16) for i in (1, 3, 5)]
        if any(max(abs(a - b) for a, b in zip(wanted, one, strict=True)) < 8 for one in seen):
            names.add(name)
    return names
