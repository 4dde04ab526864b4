"""Tests of opening FiftyOne: links, port, shutdown and the app in a browser."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ctrl_c import hears_ctrl_c
from ports import taken_port

from annotate.review.app import launch, page
from annotate.review.dataset import BuildSummary
from dsmoe_core.errors import ReviewError

REPOSITORY = Path(__file__).parents[3]
LAUNCH = """
import sys
from pathlib import Path
from annotate.review.app import launch
from tests.annotate.review.plates import samples
folder = Path(sys.argv[1])
launch("plates", samples(folder / "images", 12), folder=folder / "review", port=int(sys.argv[2]),
       announce=lambda page: print("OPEN", page.uncertain_view, flush=True))
print("ENDED", flush=True)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_links_open_the_data_set_and_its_saved_view() -> None:
    summary = BuildSummary("line 3", 1, 0, 0, 0)
    links = page("line 3", 5151, summary)
    assert links.address == "http://127.0.0.1:5151/datasets/line%203"
    assert links.uncertain_view == "http://127.0.0.1:5151/datasets/line%203?view=most-uncertain-first"
    assert links.summary is summary


def test_port_in_use_is_refused_before_the_database_starts(tmp_path: Path) -> None:
    with taken_port() as port, pytest.raises(ReviewError, match=str(port)):
        launch("x", [], folder=tmp_path / "review", port=port, announce=lambda _: None)
    assert not (tmp_path / "review").exists()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """A process that shows twelve samples in FiftyOne, its link, and its folder."""
    command = [sys.executable, "-c", LAUNCH, str(tmp_path), str(free_port())]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment, preexec_fn=hears_ctrl_c
    ) as process:
        assert process.stdout is not None
        link = next((line.split()[1] for line in process.stdout if line.startswith("OPEN")), "")
        assert link, "the process ended before the app was up"
        yield process, link, tmp_path
        process.kill()


@pytest.mark.slow
def test_ctrl_c_stops_the_app_and_the_database(opened: tuple[subprocess.Popen[str], str, Path]) -> None:
    process, _, folder = opened
    assert (folder / "review" / "mongod.lock").read_text().strip()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.splitlines()[-1] == "ENDED"
    assert (folder / "review" / "mongod.lock").read_text() == ""  # mongod empties it on a clean shutdown


@pytest.mark.browser
def test_link_opens_the_view_of_uncertain_images(
    opened: tuple[subprocess.Popen[str], str, Path], tmp_path: Path
) -> None:
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.goto(opened[1])
        expect(tab.get_by_text("Most uncertain first")).to_be_visible(timeout=60_000)
        expect(tab.get_by_text(re.compile(r"^\s*6 samples\s*$"))).to_be_visible(timeout=60_000)
        for field in ("ground_truth", "predictions", "uncertainty", "gating_weights", "routing_entropy"):
            expect(tab.get_by_text(field, exact=True).filter(visible=True).first).to_be_visible()
        tab.wait_for_timeout(3000)  # the boxes appear after the images
        tab.screenshot(path=tmp_path / "fiftyone.png")
        browser.close()
    assert (tmp_path / "fiftyone.png").stat().st_size > 20_000
