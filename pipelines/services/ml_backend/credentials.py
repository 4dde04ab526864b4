"""User name and password with which Label Studio calls the ML backend; kept in a file of mode 0600."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from dsmoe_core.atomic import atomic_write
from dsmoe_core.errors import WorkspaceError

_USERNAME = "label-studio"


@dataclass(frozen=True, slots=True)
class Credentials:
    """HTTP basic authentication; ``repr`` leaves the password out."""

    username: str
    password: str = field(repr=False)


def load_or_create_credentials(path: Path) -> Credentials:
    """Read the credentials from a file, or create the file with a random password.

    Raises:
        WorkspaceError: the file is damaged.
    """
    if not path.exists():
        created = {"username": _USERNAME, "password": secrets.token_urlsafe(24)}
        atomic_write(path, json.dumps(created), private=True)
    try:
        content = json.loads(path.read_text("utf-8"))
        return Credentials(str(content["username"]), str(content["password"]))
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"{path} is damaged; expected JSON with username and password",
            "Remove it and run `dsmoe services up` again.",
        ) from error
