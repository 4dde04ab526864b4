"""Fixtures for all tests. Every test runs with its own home, cache and environment variables."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from exports import Exports

# No deadline: the first call of torch takes longer than hypothesis allows for one example.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

# Building the environment of Label Studio takes a minute, so tests share the one in the user's cache.
ENVIRONMENTS = Path(
    os.environ.get("DSMOE_ENVIRONMENTS", platformdirs.user_cache_path("dsmoe") / "environments")
)
ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]
    """Keeps a file in one process, and all files that use ``exports`` in one, so that these are made once."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "exports" if uses_exports(file) else file


@cache
def uses_exports(file: str) -> bool:
    """Whether tests of the file have the fixture ``exports``, by its text; tests are collected later."""
    return "exports: Exports" in (ROOT / file).read_text(encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    """Distribute whole files with ``--dist loadfile``."""
    return FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new empty home, no DSMOE_*, LABEL_STUDIO_*, FIFTYONE_* or OPENAI_* variable, and no model hub."""
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
    """The folder of the service environments; the first test that needs one builds it."""
    return ENVIRONMENTS


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real data sets; skips the test where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data sets are not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """A tiny model, exported to ONNX and to OpenVINO."""
    # Imports torch, which the process that distributes the tests does not need.
    from exports import make_exports

    return make_exports(tmp_path_factory.mktemp("exports"))
