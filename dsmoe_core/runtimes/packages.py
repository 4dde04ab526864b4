"""Import of the optional packages of the extra ``export``, with their telemetry disabled."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Literal

from dsmoe_core.errors import PrerequisiteError

Package = Literal["onnx", "onnxruntime", "onnxscript", "openvino", "nncf"]


def import_package(package: Package) -> Any:
    """Import a package of the extra ``export`` without telemetry.

    OpenVINO and NNCF send telemetry when they are imported, before it can be disabled by a setting. They skip
    it if the package openvino_telemetry cannot be imported, so this function blocks that import. ONNX Runtime
    has a function that disables telemetry.

    Raises:
        PrerequisiteError: the package is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None blocks the import
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise PrerequisiteError(
            f"the package {package} is missing ({error})", "Install the extra: `pip install 'dsmoe[export]'`."
        ) from error
    if package == "onnxruntime":
        module.disable_telemetry_events()
    return module
