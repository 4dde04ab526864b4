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
"""Stages that stay in floating point: points of the ball, sampling positions and the router's choice do not
bear 8 bits, and OpenVINO refuses some of their products quantised."""


def quantise(graph: Any, squares: Sequence[ImageArray], read: ClassEncoding) -> Any:
    """The graph with 8-bit weights and activations where that costs little.

    Args:
        graph: an ``openvino.Model``; its nodes are named after their modules.
        squares: letter-boxed images like those that it will see; 300 at most are used.
        read: T^ of the classes that it was trained on.

    Raises:
        PrerequisiteError: NNCF is missing.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # NNCF wakes it: it seeks CUDA
    nncf = import_package("nncf")
    nncf.set_log_level(logging.ERROR)

    def feed(square: ImageArray) -> dict[str, Any]:
        return graph_inputs(torch.from_numpy(square)[None], read.conditioning, read.classes)

    some = squares[:MAX_SAMPLES]
    return nncf.quantize(
        graph,
        nncf.Dataset(some, feed),
        subset_size=len(some),
        preset=nncf.QuantizationPreset.MIXED,  # SiLU and GELU are not symmetric about zero
        ignored_scope=nncf.IgnoredScope(
            patterns=[f"^{stage}[./].*" for stage in FLOAT_STAGES], validate=False
        ),
    )
