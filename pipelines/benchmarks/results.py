"""Result files, benchmarks/results/NAME.json: measurements with command, commit and machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsmoe_core.atomic import atomic_write
from dsmoe_core.errors import FormatError
from dsmoe_core.processor import available_cores, processor_name
from pipelines.workspace.registry import source_commit


def machine() -> dict[str, Any]:
    """Processor, number of cores available to this process, and GPU; None without a GPU or without torch."""
    torch = sys.modules.get("torch")  # if no module imported torch, no GPU was used
    has_gpu = torch is not None and torch.cuda.is_available()
    gpu = torch.cuda.get_device_name(0) if torch is not None and has_gpu else None
    return {"cpu": processor_name(), "cores": available_cores(), "gpu": gpu}


def write_result(path: Path, measured: dict[str, Any], *, command: str, seeds: Sequence[int]) -> None:
    """Write a result file: the keys common to all result files, then ``measured``."""
    commit = source_commit()
    head = {
        "command": command,
        **({"commit": commit} if commit else {}),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "seeds": list(seeds),
    }
    atomic_write(path, json.dumps(head | measured, indent=2, ensure_ascii=False) + "\n")


def update_result(path: Path, measured: dict[str, Any], *, command: str, seeds: Sequence[int]) -> None:
    """Write into a result file that several commands write.

    Keys of other commands are kept; ``origins`` holds the command, commit and date of each.

    Raises:
        FormatError: the existing file is not a result file.
    """
    kept, origins = {}, {}
    if path.is_file():
        before = read_result(path)
        head = {name: before[name] for name in ("command", "commit", "date") if name in before}
        origins_before = before.get("origins", {})
        replaced = {"command", "commit", "date", "machine", "seeds", "origins", *measured}
        kept = {key: value for key, value in before.items() if key not in replaced}
        origins = {key: origins_before.get(key, head) for key in kept}
    content = {**kept, **measured, **({"origins": origins} if origins else {})}
    write_result(path, content, command=command, seeds=seeds)


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises:
        FormatError: the file is missing or is not a result file.
    """
    remedy = (
        "Write it with the command that measures it, or name another file: see `dsmoe benchmark --help`, "
        "`dsmoe demo --help` and `dsmoe simulate --help`."
    )
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist", remedy) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not a JSON file", remedy) from error
    if not isinstance(result, dict) or "command" not in result:
        raise FormatError(f"{path} is not a result file: it has no key `command`", remedy)
    return result
