"""Post-training quantisation of an OpenVINO graph with NNCF."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8

from dsmoe_core.network import ClassEncoding
from dsmoe_core.runtimes.packages import import_package
from dsmoe_core.runtimes.protocol import graph_inputs

ImageArray: TypeAlias = UInt8[np.ndarray, "side side 3"]
MAX_SAMPLES = 300
FLOAT_STAGES = ("alignment", "broadcasting", "gating")
"""Stages that stay in floating point. Points of the Poincare ball, sampling positions and the router's choice
lose too much in 8 bits, and OpenVINO does not support some of their products in 8 bits."""


def quantise(graph: Any, images: Sequence[ImageArray], encoding: ClassEncoding) -> Any:
    """Quantise weights and activations to 8 bits, except in ``FLOAT_STAGES``.

    Args:
        graph: an ``openvino.Model`` whose nodes are named after their modules.
        images: letter-boxed calibration images, similar to those of the application; at most ``MAX_SAMPLES``
            are used.
        encoding: of the classes of the training.

    Raises:
        PrerequisiteError: NNCF is not installed.
    """
    # NNCF imports it, and it logs a warning if it finds no CUDA.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    nncf = import_package("nncf")
    nncf.set_log_level(logging.ERROR)

    def inputs(image: ImageArray) -> dict[str, Any]:
        return graph_inputs(torch.from_numpy(image)[None], encoding.conditioning, encoding.classes)

    samples = images[:MAX_SAMPLES]
    return nncf.quantize(
        graph,
        nncf.Dataset(samples, inputs),
        subset_size=len(samples),
        preset=nncf.QuantizationPreset.MIXED,  # SiLU and GELU are not symmetric about zero
        ignored_scope=nncf.IgnoredScope(
            patterns=[f"^{stage}[./].*" for stage in FLOAT_STAGES], validate=False
        ),
    )
