"""Every test runs in a home, cache and environment of its own."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest
from exports import Exports, make_exports
from hypothesis import settings

# No test asserts a time; the first call of torch alone takes longer than hypothesis allows an example.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Service environments (Label Studio) take a minute to build, so tests share the machine's real ones.
ENVIRONMENTS = Path(
    os.environ.get("DSMOE_ENVIRONMENTS", platformdirs.user_cache_path("dsmoe") / "environments")
)
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home and no DSMOE_*, LABEL_STUDIO_*, FIFTYONE_* or OPENAI_* variable; hubs are off."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(("DSMOE_", "LABEL_STUDIO_", "FIFTYONE_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("DSMOE_ENVIRONMENTS", str(ENVIRONMENTS))
    monkeypatch.setenv("COLUMNS", "120")
    return home


@pytest.fixture(scope="session")
def environments() -> Path:
    """Where the service environments are, or are built by the first test that needs one."""
    return ENVIRONMENTS


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets; a test that needs them says so where they are missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data sets are not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """A tiny model, exported to ONNX and to OpenVINO."""
    return make_exports(tmp_path_factory.mktemp("exports"))
