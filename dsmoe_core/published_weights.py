"""Reads files of weights that other projects publish, without running code in them."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from dsmoe_core.checkpoint import read_tensors
from dsmoe_core.errors import ModelError


def read_published(path: Path, remedy: str) -> dict[str, Tensor]:
    """Read the tensors of a PyTorch or safetensors file by name.

    Args:
        path: the file.
        remedy: what to do if it cannot be used.

    Raises:
        ModelError: the file is damaged, or contains anything but tensors. Code in it is never executed.
    """
    if path.suffix == ".safetensors":
        try:
            return read_tensors(path)[0]
        except ModelError as error:
            raise ModelError(error.problem, remedy) from error
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})", remedy) from error
    except UnpicklingError as error:
        raise ModelError(
            f"{path} contains objects other than tensors; none of its code was executed", remedy
        ) from error
    except Exception as error:  # torch has no exception type for a damaged file
        raise ModelError(f"{path} is damaged, or not a PyTorch file", remedy) from error
    if not isinstance(tensors, dict) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise ModelError(f"{path} does not contain a dictionary of tensors by name", remedy)
    return {str(name): tensor for name, tensor in tensors.items()}
