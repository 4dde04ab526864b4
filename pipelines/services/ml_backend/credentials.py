"""Who may ask the back end: made once, kept in a file that nobody else may read, told to Label Studio."""

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
    """For basic authentication; printing them shows no password."""

    username: str
    password: str = field(repr=False)


def load_or_create_credentials(path: Path) -> Credentials:
    """Those in this file, which is made first if it is not there.

    Raises:
        WorkspaceError: the file is damaged.
    """
    if not path.exists():
        made = {"username": _USERNAME, "password": secrets.token_urlsafe(24)}
        atomic_write(path, json.dumps(made), private=True)
    try:
        kept = json.loads(path.read_text("utf-8"))
        return Credentials(str(kept["username"]), str(kept["password"]))
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"{path} is damaged; expected JSON with username and password",
            "Remove it and run `dsmoe services up` again.",
        ) from error
