"""The autouse fixture isolates each test from the user's home and settings and from other tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

ROOT = Path(__file__).resolve().parents[1]
PREFIXES = ("DSMOE_", "LABEL_STUDIO_", "FIFTYONE_", "OPENAI_")


def test_home_and_cache_belong_to_the_test(isolated: Path) -> None:
    assert Path.home() == isolated
    assert Path("~/.dsmoe").expanduser().is_relative_to(isolated)
    for folder in (platformdirs.user_cache_path("dsmoe"), platformdirs.user_config_path("dsmoe")):
        assert folder.is_relative_to(isolated)


@pytest.mark.parametrize("run", [1, 2])
def test_home_is_empty_for_every_test(isolated: Path, run: int) -> None:
    assert list(isolated.iterdir()) == []
    (isolated / "left-behind").write_text(str(run))


def test_no_setting_is_inherited() -> None:
    """Run again by the next test, with settings in the environment."""
    assert {name for name in os.environ if name.startswith(PREFIXES)} == {"DSMOE_ENVIRONMENTS"}
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.slow
def test_settings_of_the_user_are_removed(tmp_path: Path) -> None:
    polluted = {f"{prefix}POLLUTED": "1" for prefix in PREFIXES}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"{__file__}::{test_no_setting_is_inherited.__name__}"],
        cwd=ROOT,
        env={**os.environ, **polluted, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
