"""Layout of the labelling interface on a small screen, in Chromium with a real Label Studio.

``DSMOE_SCREENSHOTS=DIR`` keeps the screenshots, which docs/images has.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import FloatRect, Locator, Page, expect

from annotate.studio.client import LabelStudio
from annotate.studio.label_config import FILTER_FROM
from annotate.studio.protocol import Connection, Task
from dsmoe_core.config import SyntheticKind
from dsmoe_core.data.synthetic.generators import GENERATORS
from dsmoe_core.schema import Arm, ClassText, Detection, ImageRecord, Prediction, Routing, Vocabulary
from tests.annotate.studio.browser import IMAGE, REGION, signed_in

pytestmark = [pytest.mark.browser, pytest.mark.labelstudio, pytest.mark.timeout(400)]
SCREEN = (1366, 768)
USEFUL_SHARE = 0.5
SCREENSHOTS = os.environ.get("DSMOE_SCREENSHOTS")
LABEL = ".lsf-label"


@pytest.fixture(scope="module")
def page(label_studio_server) -> Iterator[Page]:  # type: ignore[no-untyped-def]
    with signed_in(label_studio_server.start(), *SCREEN) as page:
        yield page


def make_project(connection: Connection, kind: SyntheticKind, title: str) -> tuple[int, int, int]:
    """A project with three synthetic images; returns its id, the first task and its pre-annotations."""
    generator = GENERATORS[kind]
    vocabulary = Vocabulary(tuple(ClassText(name, f"a {name}") for name in generator.classes))
    studio = LabelStudio(connection)
    project = studio.ensure_project(title, vocabulary)
    tasks = []
    for rank in range(3):
        rendered = generator.render(rank + 9, 640)
        path = connection.document_root / "images" / f"{title} {rank}.png"
        rendered.image.save(path)
        key = f"{title}-{rank}"
        found = tuple(
            Detection(a.box, a.label, 0.8, {a.label: 0.8, generator.classes[0]: 0.1}, 0.2)
            for a in rendered.annotations
        )
        prediction = Prediction(key, found, Routing((0,), (1.0,), 0.0), 0.4, "r2-5c1d+book")
        image = ImageRecord(key, f"line_3/{kind}_{rank + 1:05d}.png", path, *rendered.image.size)
        tasks.append(Task(image, 3, Arm.RANKED, rank, prediction, "entropy", 1.37 - rank / 10))
    ids = studio.import_tasks(project, tasks)
    assert tasks[0].prediction is not None
    return project, ids[f"{title}-0"], len(tasks[0].prediction.detections)


def box_of(element: Locator) -> FloatRect:
    area = element.bounding_box()
    assert area is not None
    return area


def check_whole_image(page: Page) -> None:
    """The whole image is visible: inside the screen, above the bar with the buttons, and not scrolled."""
    image, bar = box_of(page.locator(IMAGE).first), box_of(page.locator(".lsf-bottombar").first)
    assert image["x"] >= 0
    assert image["y"] >= 0
    assert image["x"] + image["width"] <= SCREEN[0]
    assert image["y"] + image["height"] <= bar["y"]
    assert image["height"] >= USEFUL_SHARE * SCREEN[1]
    hidden = """() => [...document.querySelectorAll(".lsf-main-content, .lsf-main-view, .dsmoe-classes")]
        .filter(part => part.scrollHeight > part.clientHeight + 1).map(part => part.className)"""
    assert page.evaluate(hidden) == []


def check_labels(page: Page, classes: tuple[str, ...]) -> None:
    """One list of classes is shown, each inside the screen and selected by a click."""
    labels = page.locator(LABEL).locator("visible=true")
    expect(labels).to_have_count(len(classes))
    for index, name in enumerate(classes):
        area = box_of(labels.nth(index))
        assert area["y"] + area["height"] <= SCREEN[1]
        labels.nth(index).click()
        expect(page.locator(f"{LABEL}_selected")).to_have_text(_with_hotkey(name))
        labels.nth(index).click()
        expect(page.locator(f"{LABEL}_selected")).to_have_count(0)


def _with_hotkey(name: str) -> re.Pattern[str]:
    return re.compile(rf"^{re.escape(name)}.?$")


@pytest.mark.parametrize("kind", ["pcb", "glass"])
@pytest.mark.parametrize("view", ["task", "stream"])
def test_whole_image_and_all_classes_are_visible(
    page: Page, connection: Connection, title: str, tmp_path: Path, kind: SyntheticKind, view: str
) -> None:
    classes = GENERATORS[kind].classes
    project, task, boxes = make_project(connection, kind, title.replace("Project", kind))
    query = f"task={task}" if view == "task" else "labeling=1"
    page.goto(f"{connection.url}/projects/{project}/data?{query}")
    expect(page.locator(REGION)).to_have_count(boxes)
    page.locator(".konvajs-content").first.click(trial=True)  # waits until the page is stable
    folder = Path(SCREENSHOTS) if SCREENSHOTS else tmp_path
    page.screenshot(path=folder / f"{kind}-{view}.png")
    check_whole_image(page)
    check_labels(page, classes)
    text = "Round 3, image 1: selected by entropy, score 1.37, for the annotator."
    reason = page.locator(".dsmoe-image").get_by_text(text)
    assert box_of(reason)["height"] <= 24  # one line
    search = page.get_by_placeholder("Find a class")
    assert search.count() == (len(classes) >= FILTER_FROM)
    if search.count():
        search.fill("along_wide")
        expect(page.locator(LABEL).locator("visible=true")).to_have_count(3)
