"""Browser tests of the labelling interface, in Chromium with a real Label Studio."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from annotate.studio.client import LabelStudio
from annotate.studio.controls import ImageChoice
from annotate.studio.protocol import Connection, OpenTask, Task
from dsmoe_core.schema import Detection, ImageRecord, Outcome, Vocabulary
from tests.annotate.studio.browser import IMAGE, REGION, signed_in

pytestmark = [pytest.mark.browser, pytest.mark.labelstudio, pytest.mark.timeout(300)]

WIDTH, HEIGHT = 320, 200  # of the images of conftest.py
BOARD = (20, 90, 40)

MakeImage = Callable[[str], ImageRecord]
MakeTask = Callable[..., Task]
MakeDetection = Callable[..., Detection]
OpenProject = tuple[LabelStudio, int, OpenTask]


@pytest.fixture
def studio_kind() -> str:
    return "real"


@pytest.fixture
def page(connection: Connection) -> Iterator[Page]:
    """A browser page that is signed in."""
    with signed_in(connection) as page:
        yield page


@pytest.fixture
def open_project(
    connection: Connection,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> OpenProject:
    """A project with one task that has four pre-annotations."""
    studio = LabelStudio(connection)
    project = studio.ensure_project(title, vocabulary)
    detections = (
        make_detection((20, 30, 120, 90), "open", 0.9),
        make_detection((180, 40, 260, 110), "short circuit", 0.6),
        make_detection((60, 120, 150, 180), "open", 0.3),
        make_detection((270, 140, 295, 175), "open", 0.2),
    )
    studio.import_tasks(project, [make_task(images("board"), *detections)])
    return studio, project, studio.open_tasks(project)[0]


def test_corrections_of_the_first_task_are_counted(
    page: Page, connection: Connection, open_project: OpenProject, tmp_path: Path
) -> None:
    studio, project, task = open_project
    page.goto(f"{connection.url}/projects/{project}/data")  # opens the first view, the labelling queue
    page.get_by_text(re.compile("^Round 1, image 1:")).first.click()
    image = wait_for_regions(page, task)
    regions = page.locator(REGION)
    regions.nth(0).click()
    expect(page.get_by_text("open 90%, or spur 10%")).to_be_visible()  # the reason of the region
    page.screenshot(path=tmp_path / "opened.png")
    drag(page, image, (70, 60), (100, 75))  # moved
    regions.nth(2).click()
    page.keyboard.press("Backspace")  # deleted
    expect(regions).to_have_count(3)
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    drag(page, image, (150, 150), (200, 185))  # added, of the third class
    expect(regions).to_have_count(4)
    page.keyboard.press("Escape")
    page.get_by_text(str(ImageChoice.NEEDS_EXPERT)).click()
    page.get_by_placeholder("Note for the domain expert").fill("etched or scratched?")
    page.screenshot(path=tmp_path / "corrected.png")
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as posted:
        page.get_by_test_id("bottombar-submit-button").click()
    assert posted.value.status == 201
    (harvest,) = studio.harvest(project)
    expected = {Outcome.ACCEPTED: 2, Outcome.MOVED: 1, Outcome.DELETED: 1, Outcome.ADDED: 1}
    assert harvest.outcomes == {Outcome.RELABELLED: 0, **expected}
    assert [a.box.corners for a in harvest.annotations if a.label == "spur"] == [
        pytest.approx((150, 150, 200, 185), abs=1.0)
    ]
    moved = next(a.box for a in harvest.annotations if a.label == "open" and a.box.x1 < 200)
    assert moved.corners == pytest.approx((50, 45, 150, 105), abs=1.0)
    assert (harvest.doubt, harvest.note) == (str(ImageChoice.NEEDS_EXPERT), "etched or scratched?")


def open_page(page: Page, connection: Connection, project: int, task: OpenTask) -> Locator:
    """Open the task and return the element that covers the image exactly."""
    page.goto(f"{connection.url}/projects/{project}/data?task={task.task_id}")
    return wait_for_regions(page, task)


def wait_for_regions(page: Page, task: OpenTask) -> Locator:
    """Wait for the pre-annotations and return the element that covers the image exactly."""
    expect(page.locator(REGION)).to_have_count(len(task.pre_annotations))
    page.locator(".konvajs-content").first.click(trial=True)  # waits until the page is stable
    return page.locator(IMAGE).first


def on_screen(image: Locator, x: float, y: float) -> tuple[float, float]:
    """Screen position of a point in image pixels."""
    area = image.bounding_box()
    assert area is not None
    return area["x"] + x * area["width"] / WIDTH, area["y"] + y * area["height"] / HEIGHT


def drag(page: Page, image: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag from one point of the image to another, both in image pixels."""
    page.mouse.move(*on_screen(image, *start))
    page.mouse.down()
    page.mouse.move(*on_screen(image, *end), steps=12)
    page.mouse.up()


def test_pre_annotations_are_shown(
    page: Page, connection: Connection, open_project: OpenProject, tmp_path: Path
) -> None:
    _, project, task = open_project
    image = open_page(page, connection, project, task)
    names = page.locator(f"{REGION}__title").all_inner_texts()
    assert [text.split("\n")[-1] for text in names] == [region.label for region in task.pre_annotations]
    text = "Round 1, image 1: selected by entropy, score 0.40, for the annotator."
    expect(page.locator(".dsmoe-image")).to_contain_text(text)
    screen = Image.open(io.BytesIO(page.screenshot(path=tmp_path / "task.png"))).convert("RGB")

    def pixel(x: float, y: float) -> tuple[int, ...]:
        across, down = on_screen(image, x, y)
        return screen.getpixel((round(across), round(down)))  # type: ignore[return-value]

    assert pixel(160, 20) == pytest.approx(BOARD, abs=3)
    for region in task.pre_annotations:  # each box tints the board up to its corners
        x1, y1, x2, y2 = region.box.corners
        assert pixel(x1 + 3, y1 + 3) != pytest.approx(BOARD, abs=10)
        assert pixel(x2 - 3, y2 - 3) != pytest.approx(BOARD, abs=10)
        assert pixel(x1 - 3, y1 - 3) == pytest.approx(BOARD, abs=3)
        assert pixel(x2 + 3, y2 + 3) == pytest.approx(BOARD, abs=3)


def test_outcomes_match_the_edits_in_the_interface(
    page: Page, connection: Connection, open_project: OpenProject, tmp_path: Path
) -> None:
    studio, project, task = open_project
    image = open_page(page, connection, project, task)
    regions = page.locator(REGION)
    regions.nth(0).click()
    drag(page, image, (70, 60), (100, 75))  # moved, by 30 and 15 px
    regions.nth(1).click()
    page.keyboard.press("3")  # relabelled: the key of the third class
    regions.nth(2).click()
    page.keyboard.press("Backspace")  # deleted
    expect(regions).to_have_count(3)
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    drag(page, image, (150, 150), (200, 190))  # added, of the second class
    expect(regions).to_have_count(4)
    page.screenshot(path=tmp_path / "corrected.png")
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as posted:
        page.get_by_test_id("bottombar-submit-button").click()
    assert posted.value.status == 201
    (harvest,) = studio.harvest(project)
    assert harvest.outcomes == dict.fromkeys(Outcome, 1)
    by_label = {a.label: a.box for a in harvest.annotations if a.label != "open"}
    assert by_label["spur"].corners == pytest.approx(task.pre_annotations[1].box.corners, abs=0.01)
    assert by_label["short circuit"].corners == pytest.approx((150, 150, 200, 190), abs=1.0)
    moved = next(a.box for a in harvest.annotations if a.label == "open" and a.box.x1 < 200)
    assert moved.corners == pytest.approx((50, 45, 150, 105), abs=1.0)
    assert harvest.version == "model+book"
    assert harvest.seconds is not None
    assert harvest.seconds > 0
