"""What pyproject.toml promises about every test run really happens."""

from __future__ import annotations

import warnings

import pytest
import torch
from jaxtyping import TypeCheckError

from dsmoe_core.poincare import mobius_add


def test_a_warning_is_an_error() -> None:
    with pytest.raises(UserWarning, match="seen"):
        warnings.warn("seen", UserWarning, stacklevel=1)


def test_shapes_that_fit_pass() -> None:
    assert mobius_add(torch.zeros(2, 3), torch.zeros(2, 3)).shape == (2, 3)


def test_a_wrong_shape_raises() -> None:
    """Broadcasting would hide it: only the annotations forbid this."""
    with pytest.raises(TypeCheckError):
        mobius_add(torch.zeros(2, 3), torch.zeros(1, 3))


def test_a_wrong_type_raises() -> None:
    with pytest.raises(TypeCheckError):
        mobius_add([0.0], [0.0])


def test_only_fast_tests_are_the_default(pytestconfig: pytest.Config) -> None:
    declared = {line.split(":")[0] for line in pytestconfig.getini("markers")}
    ours = {"slow", "gpu", "browser", "labelstudio", "vllm"}
    assert ours <= declared
    assert all(f"not {marker}" in " ".join(pytestconfig.getini("addopts")) for marker in ours)
