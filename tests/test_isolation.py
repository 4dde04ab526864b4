"""The autouse fixture really keeps tests away from the developer's home, settings and each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = ("DSMOE_", "LABEL_STUDIO_", "FIFTYONE_", "OPENAI_")


def test_home_and_cache_are_the_test_s_own(isolated: Path) -> None:
    assert Path.home() == isolated
    assert Path("~/.dsmoe").expanduser().is_relative_to(isolated)
    for folder in (platformdirs.user_cache_path("dsmoe"), platformdirs.user_config_path("dsmoe")):
        assert folder.is_relative_to(isolated)


@pytest.mark.parametrize("turn", [1, 2])
def test_home_is_fresh_every_time(isolated: Path, turn: int) -> None:
    assert list(isolated.iterdir()) == []
    (isolated / "left-behind").write_text(str(turn))


def test_no_setting_comes_from_outside() -> None:
    """Run again below, in an environment full of settings."""
    assert {name for name in os.environ if name.startswith(FOREIGN)} == {"DSMOE_ENVIRONMENTS"}
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_settings_of_the_developer_are_removed(tmp_path: Path) -> None:
    polluted = {f"{prefix}POLLUTED": "1" for prefix in FOREIGN}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"{__file__}::{test_no_setting_comes_from_outside.__name__}"],
        cwd=ROOT,
        env={**os.environ, **polluted, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
