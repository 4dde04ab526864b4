"""The optional packages behind one door: asked for in words when missing, and kept from calling home."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Literal

from dsmoe_core.errors import PrerequisiteError

Package = Literal["onnx", "onnxruntime", "onnxscript", "openvino", "nncf"]


def import_package(package: Package) -> Any:
    """Import a package of the extra ``export``.

    Importing OpenVINO or NNCF sends word of it to their makers, before any setting of ours could be read.
    Both do without where their package for it cannot be imported, so it is made so; ONNX Runtime has a
    switch.

    Raises:
        PrerequisiteError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # the language's own "no such module"
    try:
        found = importlib.import_module(package)
    except ImportError as error:
        raise PrerequisiteError(
            f"the package {package} is missing ({error})", "Install the extra: `pip install 'dsmoe[export]'`."
        ) from error
    if package == "onnxruntime":
        found.disable_telemetry_events()
    return found
