"""Validation of settings with one message that lists every wrong one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dsmoe_core.errors import SettingsError, WorkspaceError

FORMAT_VERSION = 2
"""Version of the workspace format: ``dsmoe.yaml``, the journal and the folders change it together."""
_Model = TypeVar("_Model", bound=BaseModel)


def check_format_version(version: object, where: Path | str) -> None:
    """Refuse a workspace of another format version.

    Raises:
        WorkspaceError: the version is not ``FORMAT_VERSION``.
    """
    if version == FORMAT_VERSION:
        return
    remedy = "Open it with the dsmoe that made it."
    if isinstance(version, int) and version < FORMAT_VERSION:
        remedy = "Make a new workspace with `dsmoe init`, or open this one with dsmoe 0.1."
    raise WorkspaceError(
        f"{where} has workspace format version {version}; this dsmoe expects {FORMAT_VERSION}", remedy
    )


def validate_settings(
    model: type[_Model],
    raw: Mapping[str, Any],
    where: str,
    variable_name: Callable[[str], str] = lambda path: path,
) -> _Model:
    """Validate settings; on failure one message lists every wrong setting.

    Args:
        model: pydantic model of the settings.
        raw: names and values as they were read.
        where: where they come from, for the message.
        variable_name: name of a setting in the message, by its dotted path.

    Raises:
        SettingsError: at least one setting is wrong.
    """
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        problems = "; ".join(_format_problem(dict(e), variable_name) for e in error.errors(include_url=False))
        raise SettingsError(f"{where} has wrong settings: {problems}", "Correct all of them.") from error


def _format_problem(error: Mapping[str, Any], variable_name: Callable[[str], str]) -> str:
    path = variable_name(".".join(str(part) for part in error["loc"])) or "settings"
    if error["type"] == "extra_forbidden":
        return f"{path} is not known"
    if error["type"] == "missing":
        return f"{path} is missing"
    secret = path.lower().endswith(("api_key", "token", "url", "uri"))  # an address may contain a login
    value = "" if secret or isinstance(error["input"], dict) else f" (got {error['input']!r})"
    return f"{path}: {error['msg'][0].lower()}{error['msg'][1:]}{value}"
