"""Random weights of the original's names and shapes, and the file that ``dsmoe weights`` makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmoe_core.mobile_sam.weights import FILE, convert, write_weights
from tests.dsmoe_core.mobile_sam.original import Weights, random_weights


@pytest.fixture(scope="session")
def original() -> Weights:
    """What is in mobile_sam.pt, but random; do not change it."""
    return random_weights()


@pytest.fixture(scope="session")
def kept_file(original: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same under our names."""
    path = tmp_path_factory.mktemp("weights") / FILE
    write_weights(*convert(original), path, {"from": "a test"})
    return path
