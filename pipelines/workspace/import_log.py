"""Accounts of imports, kept as JSON files in a workspace's folder ``imports`` or next to other results."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
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
        file: the record itself; None before it is written.
    """

    command: str
    imported_at: datetime
    accounts: Mapping[str, ImportAccount]
    file: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as a dictionary that JSON can hold."""
        return {
            "command": self.command,
            "imported_at": self.imported_at.isoformat(),
            "accounts": {name: account.to_dict() for name, account in self.accounts.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: Path | None = None) -> ImportRecord:
        """Inverse of :meth:`to_dict`."""
        accounts = {name: ImportAccount.from_dict(a) for name, a in values["accounts"].items()}
        return cls(values["command"], datetime.fromisoformat(values["imported_at"]), accounts, file)


def write_record(path: Path, command: str, accounts: Mapping[str, ImportAccount]) -> None:
    """Write the accounts of an import to a file.

    Raises:
        PrerequisiteError: the disk is full.
    """
    record = ImportRecord(command, datetime.now(UTC), accounts)
    atomic_write(path, json.dumps(record.to_dict(), ensure_ascii=False, indent=1) + "\n")


def record_import(workspace: Path, command: str, accounts: Mapping[str, ImportAccount]) -> Path:
    """Write the accounts of an import to the workspace's next file ``imports/NNNN-COMMAND.json``.

    Returns:
        The file.

    Raises:
        PrerequisiteError: the disk is full.
    """
    folder = workspace / IMPORTS
    folder.mkdir(exist_ok=True)
    numbers = [int(match[1]) for p in folder.iterdir() if (match := _NAME.match(p.name))]
    path = folder / f"{max(numbers, default=0) + 1:04d}-{command}.json"
    write_record(path, command, accounts)
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
