"""The Streamlit server of the UI, and its pages in a browser."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import taken_port

from dsmoe_core.errors import PrerequisiteError, ServiceError
from tests.ui.workspaces import make_workspace
from ui import launch

REPOSITORY = Path(__file__).parents[2]


def test_server_is_on_loopback_without_telemetry(tmp_path: Path) -> None:
    arguments = launch.arguments(tmp_path, 8501)
    assert arguments[arguments.index("--server.address") + 1] == "127.0.0.1"
    assert arguments[arguments.index("--server.port") + 1] == "8501"
    assert arguments[arguments.index("--browser.gatherUsageStats") + 1] == "false"
    assert arguments[arguments.index("--runner.magicEnabled") + 1] == "false"
    assert arguments[-2:] == ["--", str(tmp_path)]


def test_port_in_use_is_refused(tmp_path: Path) -> None:
    with taken_port() as port, pytest.raises(ServiceError, match=rf"port {port} "):
        launch.serve(tmp_path, port)


def test_next_port_is_used_where_the_port_was_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: list[str] = []
    monkeypatch.setattr("streamlit.web.cli.main", lambda given, **_: arguments.extend(given))
    with taken_port() as port:
        launch.serve(tmp_path, port, fixed_port=False)
    assert int(arguments[arguments.index("--server.port") + 1]) > port


def test_missing_streamlit_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match="streamlit"):
        launch.serve(tmp_path, 8501)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Address of the UI of a workspace with three rounds, served in a separate process."""
    workspace = make_workspace(tmp_path, rounds=3, then_open=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "import sys, pathlib, ui.launch as u; u.serve(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(workspace), str(port)], env=environment, stdout=subprocess.DEVNULL
    ) as process:
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.mark.browser
def test_every_page_opens_without_requests_to_other_hosts(address: str, tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    urls: set[str] = set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.on("request", lambda request: urls.add(request.url))
        tab.goto(address)
        expect(tab.get_by_role("heading", name="Learning curve")).to_be_visible(timeout=60_000)
        expect(
            tab.locator("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg")
        ).to_have_count(2, timeout=30_000)
        text = tab.locator("[data-testid=stMainBlockContainer]").inner_text()
        assert text.startswith("Rounds")  # nothing of the script is printed above the page
        tab.screenshot(path=tmp_path / "rounds.png", full_page=True)
        tab.get_by_role("link", name="Experts").click()
        expect(tab.get_by_role("heading", name="Leading expert, by class")).to_be_visible(timeout=30_000)
        tab.wait_for_timeout(2000)
        tab.screenshot(path=tmp_path / "experts.png", full_page=True)
        tab.goto(f"{address}/images")
        expect(tab.locator("[data-testid=stImage] img")).to_have_count(12, timeout=30_000)
        tab.get_by_text("Labelled", exact=True).click()
        expect(tab.get_by_text("18 images, the most uncertain first.")).to_be_visible(timeout=30_000)
        tab.wait_for_timeout(1000)
        tab.screenshot(path=tmp_path / "images.png", full_page=True)
        browser.close()
    others = {url for url in urls if not url.startswith((address, "data:", "blob:"))}
    assert others == set()
