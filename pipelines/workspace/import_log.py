"""Accounts of imports, kept as JSON files in a workspace's folder ``imports`` or next to other results."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsmoe_core.atomic import atomic_write
from dsmoe_core.data.import_account import ImportAccount

IMPORTS = "imports"
IMPORT_FILE = "import.json"
"""Name of the account in the output folder of a training."""
_NAME = re.compile(r"^(\d{4,})-[a-z-]+\.json$")


@dataclass(frozen=True, slots=True)
class ImportRecord:
    """One import into a workspace.

    Attributes:
        command: that imported, such as ``init``.
        imported_at: time of the import.
        accounts: by what was imported, such as ``annotations`` or ``test``.
        images: what was in the folder of images, see ``IngestResult.account``; empty if it is not recorded.
        file: the record itself; None before it is written.
    """

    command: str
    imported_at: datetime
    accounts: Mapping[str, ImportAccount]
    images: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as a dictionary that JSON can hold."""
        return {
            "command": self.command,
            "imported_at": self.imported_at.isoformat(),
            "accounts": {name: account.to_dict() for name, account in self.accounts.items()},
            "images": dict(self.images),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: Path | None = None) -> ImportRecord:
        """Inverse of :meth:`to_dict`."""
        accounts = {name: ImportAccount.from_dict(a) for name, a in values["accounts"].items()}
        imported_at = datetime.fromisoformat(values["imported_at"])
        return cls(values["command"], imported_at, accounts, values["images"], file)


def write_record(
    path: Path,
    command: str,
    accounts: Mapping[str, ImportAccount],
    images: Mapping[str, Any] | None = None,
) -> None:
    """Write the accounts of an import to a file.

    Args:
        images: what was in the folder of images, see ``IngestResult.account``.

    Raises:
        PrerequisiteError: the disk is full.
    """
    record = ImportRecord(command, datetime.now(UTC), accounts, images or {})
    atomic_write(path, json.dumps(record.to_dict(), ensure_ascii=False, indent=1) + "\n")


def record_import(
    workspace: Path,
    command: str,
    accounts: Mapping[str, ImportAccount],
    images: Mapping[str, Any] | None = None,
) -> Path:
    """Write the accounts of an import to the workspace's next file ``imports/NNNN-COMMAND.json``.

    Args:
        images: what was in the folder of images, see ``IngestResult.account``.

    Returns:
        The file.

    Raises:
        PrerequisiteError: the disk is full.
    """
    folder = workspace / IMPORTS
    folder.mkdir(exist_ok=True)
    numbers = [int(match[1]) for p in folder.iterdir() if (match := _NAME.match(p.name))]
    path = folder / f"{max(numbers, default=0) + 1:04d}-{command}.json"
    write_record(path, command, accounts, images)
    return path


def read_imports(workspace: Path) -> tuple[ImportRecord, ...]:
    """All imports of a workspace, the latest one first; files that cannot be read are passed over."""
    folder = workspace / IMPORTS
    records = []
    for path in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else ():
        if _NAME.match(path.name):
            try:
                records.append(ImportRecord.from_dict(json.loads(path.read_bytes()), path))
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return tuple(records)
