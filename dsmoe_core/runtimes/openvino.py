"""OpenVINO runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float, UInt8
from torch import Tensor

from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.runtimes.packages import import_package
from dsmoe_core.runtimes.protocol import Precision, RuntimeOutput, graph_inputs, runtime_output


class OpenVinoRuntime:
    """Runs ``model.xml``, or ``model.onnx`` without conversion.

    Args:
        graph: the file.
        precision: bf16 lets OpenVINO compute an fp32 graph in bf16 where that is faster. int8 is part of the
            graph; the parts that are not quantised run in fp32.

    Raises:
        ModelError: the file is damaged.
        PrerequisiteError: OpenVINO is not installed, or the CPU does not support bf16.
    """

    name = "openvino"

    def __init__(self, graph: Path, precision: Precision = "fp32") -> None:
        core = import_package("openvino").Core()
        if precision == "bf16" and not has_bf16():
            raise PrerequisiteError("this processor cannot compute in bf16", "Use --precision fp32.")
        self.precision: Precision = precision
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self._request = core.compile_model(core.read_model(graph), "CPU", hints).create_infer_request()
        except RuntimeError as error:
            lines = str(error).strip().splitlines()
            raise ModelError(f"{graph} cannot be run ({lines[-1]})", "Export it again.") from error

    def run(
        self,
        images: UInt8[Tensor, "b side side 3"],
        conditioning: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
    ) -> RuntimeOutput:
        """Run a batch; see :class:`~dsmoe_core.runtimes.protocol.Runtime`."""
        return runtime_output(self._request.infer(graph_inputs(images, conditioning, classes)).to_tuple())


def has_bf16() -> bool:
    """Whether this CPU supports bf16.

    Raises:
        PrerequisiteError: OpenVINO is not installed.
    """
    return "BF16" in import_package("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
