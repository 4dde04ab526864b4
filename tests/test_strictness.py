"""The strict test settings of pyproject.toml take effect: warnings, shapes, markers."""

from __future__ import annotations

import warnings

import pytest
import torch
from jaxtyping import TypeCheckError

from dsmoe_core.poincare import mobius_add


def test_a_warning_is_an_error() -> None:
    with pytest.raises(UserWarning, match="any text"):
        warnings.warn("any text", UserWarning, stacklevel=1)


def test_matching_shapes_are_accepted() -> None:
    assert mobius_add(torch.zeros(2, 3), torch.zeros(2, 3)).shape == (2, 3)


def test_a_wrong_shape_raises() -> None:
    """The operation itself would broadcast; only the shape annotation rejects it."""
    with pytest.raises(TypeCheckError):
        mobius_add(torch.zeros(2, 3), torch.zeros(1, 3))


def test_a_wrong_type_raises() -> None:
    with pytest.raises(TypeCheckError):
        mobius_add([0.0], [0.0])


def test_default_run_excludes_every_marker(pytestconfig: pytest.Config) -> None:
    declared = {line.split(":")[0] for line in pytestconfig.getini("markers")}
    ours = {"slow", "gpu", "browser", "labelstudio", "vllm"}
    assert ours <= declared
    assert all(f"not {marker}" in " ".join(pytestconfig.getini("addopts")) for marker in ours)
