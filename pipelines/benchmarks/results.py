"""benchmarks/results/NAME.json: what was measured, by which command, on which commit and machine."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsmoe_core.atomic import atomic_write
from dsmoe_core.errors import FormatError
from pipelines.workspace.registry import source_commit


def machine() -> dict[str, Any]:
    """The processor, the cores that this process may use, and the GPU; none where torch sees or uses none."""
    torch = sys.modules.get("torch")  # where nothing imported it, no GPU took part
    there = torch is not None and torch.cuda.is_available()
    gpu = torch.cuda.get_device_name(0) if torch is not None and there else None
    return {"cpu": _processor(), "cores": len(os.sched_getaffinity(0)), "gpu": gpu}


def write_result(path: Path, measured: dict[str, Any], *, command: str, seeds: Sequence[int]) -> None:
    """Write a result file with the keys that all have."""
    commit = source_commit()
    head = {
        "command": command,
        **({"commit": commit} if commit else {}),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "seeds": list(seeds),
    }
    atomic_write(path, json.dumps(head | measured, indent=2, ensure_ascii=False) + "\n")


def write_into(path: Path, measured: dict[str, Any], *, command: str, seeds: Sequence[int]) -> None:
    """The same for a file that several commands write: others' keys stay, with their ``origins``.

    Raises:
        FormatError: what is there was not written by this module.
    """
    kept, origins = {}, {}
    if path.is_file():
        before = read_result(path)
        head = {name: before[name] for name in ("command", "commit", "date") if name in before}
        said = before.get("origins", {})
        ours = {"command", "commit", "date", "machine", "seeds", "origins", *measured}
        kept = {key: value for key, value in before.items() if key not in ours}
        origins = {key: said.get(key, head) for key in kept}
    whole = {**kept, **measured, **({"origins": origins} if origins else {})}
    write_result(path, whole, command=command, seeds=seeds)


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises:
        FormatError: it is missing, or was not written by this module.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError(
            f"{path} is not there", f"Measure it with `dsmoe benchmark {path.stem}`."
        ) from error
    except ValueError as error:
        raise FormatError(
            f"{path} is no JSON", f"Measure it again: `dsmoe benchmark {path.stem}`."
        ) from error
    if not isinstance(found, dict) or "command" not in found:
        raise FormatError(f"{path} is no result file", f"Measure it again: `dsmoe benchmark {path.stem}`.")
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
