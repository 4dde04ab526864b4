"""Changes of single settings on a command line, of the form ``NAME=VALUE``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import yaml

from dsmoe_core.errors import SettingsError


def apply_changes(
    raw: Mapping[str, Any], changes: str, *, example: str, fixed: Collection[str] = ()
) -> dict[str, Any]:
    """The settings with these changes; ``raw`` is not changed.

    Args:
        raw: settings by name; sections are mappings.
        changes: ``NAME=VALUE`` or ``SECTION.NAME=VALUE``, separated by spaces; values are YAML.
        example: a change for the error message.
        fixed: settings that may not be changed, because the command determines them.

    Raises:
        SettingsError: a change is malformed or names a fixed setting.
    """
    changed = dict(raw)
    for part in changes.split():
        path, _, text = part.partition("=")
        if path in fixed and text:
            raise SettingsError(
                f"{part!r} is determined by the command", f"Change others, such as {example}."
            )
        *sections, name = path.split(".")
        section = changed
        for key in sections:
            section[key] = dict(section[key]) if isinstance(section.get(key), Mapping) else {}
            section = section[key]
        section[name] = _value(part, path, text, example)
    return changed


def _value(part: str, path: str, text: str, example: str) -> Any:
    malformed = SettingsError(f"{part!r} is not of the form NAME=VALUE", f"Give some such as {example}.")
    if not path or not text:
        raise malformed
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise malformed from None
