"""Chromium, signed in to a Label Studio."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from annotate.studio.protocol import Connection

CHROMIUM = Path("/usr/bin/chromium")
REGION = ".lsf-outliner-item"
IMAGE = ".lsf-image canvas"
"""The first such element covers the image exactly."""
_OPTIONS = (
    "--no-sandbox",
    "--no-first-run",
    "--disable-sync",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
)


@contextmanager
def signed_in(connection: Connection, width: int = 1500, height: int = 900) -> Iterator[Page]:
    """A browser page of this size that is signed in; skips the test where there is no Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_OPTIONS))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)  # for slow machines
        page.goto(f"{connection.url}/user/login/")
        page.fill("input[name=email]", connection.username)
        page.fill("input[name=password]", connection.password)
        page.click("button[type=submit]")
        page.wait_for_url(re.compile(r"/(projects)?/?$"))
        yield page
        browser.close()
