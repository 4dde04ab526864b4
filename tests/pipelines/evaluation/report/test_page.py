"""The HTML evaluation report: metrics, embedded images and charts, and empty cases."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from nasty_names import CONTROL, GROUPS, NAMES
from PIL import Image
from scenes import CLASSES, SIDE, Scene, labelled, prediction, random_scene

from dsmoe_core.errors import PrerequisiteError, WorkspaceError
from dsmoe_core.evaluation.bootstrap import resample_counts
from dsmoe_core.evaluation.matching import ImageMatches, match_images
from dsmoe_core.evaluation.metrics import compute_metrics, evaluation_tables
from dsmoe_core.plain_text import visible
from dsmoe_core.schema import Box, ImageRecord, LabelledImage
from pipelines.evaluation.report import page
from pipelines.evaluation.report.worst import (
    COLOURS,
    CORRECT,
    DETECTED,
    FALSE,
    MAX_IMAGES,
    MISSED,
    image_loss,
    render_image,
    worst_images,
)

BOX = Box(20, 20, 80, 80)


def on_disk(scene: Scene, folder: Path) -> Scene:
    """The same scene with a grey image file."""
    path = folder / "grey.png"
    Image.new("L", (SIDE, SIDE), 128).save(path)
    truth = [
        LabelledImage(ImageRecord(p.image.key, p.image.name, path, SIDE, SIDE), p.annotations)
        for p in scene[1]
    ]
    return scene[0], truth


def evaluated(
    scene: Scene, classes: tuple[str, ...] = CLASSES, **data: Any
) -> tuple[dict[str, Any], list[tuple[ImageMatches, dict[str, Any]]]]:
    counts = resample_counts(len(scene[1]), 20, 0)
    tables = evaluation_tables(*scene, classes, counts, lambda done, total: None)
    body = compute_metrics(tables, counts, given=0.3, seed=0)
    worst = worst_images(tables.matched, body["threshold"])
    head = {
        "command": "dsmoe evaluate",
        "date": "2026-01-01",
        "seed": 0,
        "resamples": 20,
        "model": {"name": "r1", "class_book": "b"},
        "data": {"name": "val", "annotations": "a", "images": "i", "left_out": [], "notes": [], **data},
    }
    return head | body | {"worst": [summary for _, summary in worst]}, worst


class Reader(HTMLParser):
    """Collects the addresses, tags and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def read(folder: Path) -> Reader:
    return parsed((folder / "report.html").read_text(encoding="utf-8"))


def parsed(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.text = " ".join(reader.text.split())
    return reader


def test_report_is_self_contained(tmp_path: Path) -> None:
    metrics, worst = evaluated(on_disk(random_scene(1), tmp_path))
    page.write_report(tmp_path / "out", metrics, worst)
    reader = read(tmp_path / "out")
    assert len(worst) == len(list((tmp_path / "out" / "worst").iterdir())) > 3
    assert len(reader.addresses) == len(worst) + len(CLASSES) + 1
    assert all(address.startswith("data:image/") for address in reader.addresses)
    for address in reader.addresses:
        content = base64.b64decode(address.partition(",")[2])
        if address.startswith("data:image/svg"):
            assert content.startswith(b"<svg ")
            assert b"<script" not in content
            assert b"url(http" not in content
    assert not {"script", "link", "iframe", "base"} & set(reader.tags)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == metrics


@pytest.mark.parametrize("names", [GROUPS[0], GROUPS[-1], CONTROL[:3]], ids=["first", "last", "control"])
def test_names_from_outside_are_text_on_the_page(tmp_path: Path, names: Sequence[str]) -> None:
    metrics, worst = evaluated(on_disk(random_scene(1), tmp_path))
    tags = set(parsed(page.render_page(metrics, [])).tags)
    text = json.dumps(metrics)
    for label, name in zip(CLASSES, names, strict=False):
        text = text.replace(json.dumps(label), json.dumps(name))
    renamed = json.loads(text)
    renamed["model"]["name"] = renamed["data"]["name"] = renamed["command"] = names[0]
    everything = [*NAMES, *CONTROL]
    renamed["data"]["left_out"] = [{"name": name, "boxes": 1, "reason": name} for name in everything[:20]]
    renamed["data"]["notes"] = everything
    images = [({**worst[0][1], "name": name}, "data:,") for name in everything]
    reader = parsed(page.render_page(renamed, images))
    for name in everything:
        assert " ".join(visible(name).split()) in reader.text
    assert set(reader.tags) <= {*tags, "div", "ul", "li", "figure", "figcaption", "img", "b"}
    assert not {name for name in reader.attributes if name.startswith("on")}
    assert all(address.startswith("data:") for address in reader.addresses)


def test_report_is_reproducible(tmp_path: Path) -> None:
    for name in ("a", "b"):
        page.write_report(tmp_path / name, *evaluated(on_disk(random_scene(1), tmp_path)))
    assert (tmp_path / "a" / "report.html").read_bytes() == (tmp_path / "b" / "report.html").read_bytes()


def test_page_shows_the_metrics(tmp_path: Path) -> None:
    metrics, worst = evaluated(on_disk(random_scene(1), tmp_path))
    row = {"this": 0.5, "other": 0.25, "delta": 0.25, "ci95": [0.125, 0.375], "p": 0.0625}
    metrics["against"] = {"name": "r0", "class_book": "b", "metrics": {"map50": row, "map": row}}
    page.write_report(tmp_path / "out", metrics, worst)
    text = read(tmp_path / "out").text
    for key in ("map", "map50"):
        assert f"{metrics['total'][key]:.3f}" in text
    for row in metrics["classes"]:
        assert f"{row['name']} {row['boxes']} {row['detections']} {row['map']:.3f}" in text
    assert "+0.250 +0.125 to +0.375 0.062" in text


EMPTY: dict[str, Scene] = {
    "no ground truth": ({"p": prediction("p", (BOX, "spur", 0.9))}, [labelled("p")]),
    "no detection": ({}, [labelled("p", (BOX, "spur"))]),
    "neither": ({}, [labelled("p")]),
    "nothing correct": ({"p": prediction("p", (BOX, "hole", 0.9))}, [labelled("p", (BOX, "spur"))]),
    "absent classes": ({"p": prediction("p", (BOX, "spur", 0.9))}, [labelled("p", (BOX, "spur"))]),
}


@pytest.mark.parametrize("case", EMPTY)
def test_page_without_undefined_values(case: str, tmp_path: Path) -> None:
    page.write_report(tmp_path / "out", *evaluated(on_disk(EMPTY[case], tmp_path)))
    text = read(tmp_path / "out").text
    assert "nan" not in text.lower().split()
    assert "None" not in text
    assert ("spur, short, hole" in text) == (case in ("no ground truth", "neither"))
    assert "short, hole" in text  # classes without ground truth


def test_unreadable_images_are_listed(tmp_path: Path) -> None:
    left_out = [{"name": f"torn{i}.png", "reason": "it is damaged", "boxes": 1} for i in range(25)]
    scene = on_disk(random_scene(1, images=5), tmp_path)
    page.write_report(
        tmp_path / "out", *evaluated(scene, left_out=left_out, notes=["3 crowd regions left out"])
    )
    text = read(tmp_path / "out").text
    assert "25 of 30 annotated images" in text
    assert "torn19.png (1 box): it is damaged" in text
    assert "torn20.png" not in text
    assert "3 crowd regions left out" in text


def test_names_are_escaped(tmp_path: Path) -> None:
    bad = "<script>alert('$x$')</script> 欠陥"
    scene = ({"p": prediction("p", (BOX, bad, 0.9))}, [labelled("p", (BOX, bad), (Box(0, 0, 9, 9), bad))])
    page.write_report(tmp_path / "out", *evaluated(on_disk(scene, tmp_path), classes=(bad,), name=bad))
    reader = read(tmp_path / "out")
    assert "script" not in reader.tags
    assert bad in reader.text


def test_folder_of_other_files_and_missing_package_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(WorkspaceError, match=r"thesis\.tex"):
        page.check_report_folder(tmp_path)
    page.check_report_folder(tmp_path / "new")
    monkeypatch.setattr(page, "find_spec", lambda name: None if name == "matplotlib" else object())
    with pytest.raises(PrerequisiteError, match="matplotlib"):
        page.check_report_folder(tmp_path / "new")


def test_worst_images_have_the_largest_loss() -> None:
    detections, truth = random_scene(4, images=30)
    matched = match_images(detections, truth)
    worst = worst_images(matched, 0.5)
    losses = [image_loss(p) for p, _ in worst]
    assert len(worst) == MAX_IMAGES == 12
    assert losses == sorted((image_loss(p) for p in matched), reverse=True)[:12]
    assert len({summary["file"] for _, summary in worst}) == 12


def test_image_loss_by_hand() -> None:
    far, other = Box(100, 100, 150, 150), Box(0, 0, 9, 9)
    rows = prediction("p", (BOX, "spur", 0.75), (far, "spur", 0.5))
    (image,) = match_images({"p": rows}, [labelled("p", (BOX, "spur"), (other, "spur"))])
    assert image_loss(image) == pytest.approx(0.25 + 1 + 0.5)


def test_each_kind_of_box_has_its_colour(tmp_path: Path) -> None:
    boxes = [
        Box(20 + 90 * (i % 2), 30 + 90 * (i // 2), 70 + 90 * (i % 2), 80 + 90 * (i // 2)) for i in range(3)
    ]
    rows = prediction("p", (boxes[0], "spur", 0.9), (boxes[1], "spur", 0.8))
    scene = on_disk(({"p": rows}, [labelled("p", (boxes[0], "spur"), (boxes[2], "spur"))]), tmp_path)
    (image,) = match_images(*scene)
    (tmp_path / "rendered.jpg").write_bytes(render_image(image, 0.5))
    with Image.open(tmp_path / "rendered.jpg") as opened:
        scale = opened.width / SIDE
        assert scale == 4
        names = [
            colours(opened.crop(tuple(int(scale * v) for v in (b.x1 - 2, b.y1 - 12, b.x2, b.y2 + 12))))
            for b in boxes
        ]
    assert {CORRECT, DETECTED} <= names[0]
    assert names[1] == {FALSE}
    assert names[2] == {MISSED}
    (tmp_path / "rendered.jpg").write_bytes(render_image(image, 0.85))
    with Image.open(tmp_path / "rendered.jpg") as opened:
        assert FALSE not in colours(opened)


def colours(image: Image.Image) -> set[str]:
    """Names of the box colours in the image, with a tolerance for JPEG compression."""
    pixels = [colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []]
    names = set()
    for name, text in COLOURS.items():
        expected = [int(text[i : i + 2], 16) for i in (1, 3, 5)]
        if any(max(abs(a - b) for a, b in zip(expected, pixel, strict=True)) < 8 for pixel in pixels):
            names.add(name)
    return names
