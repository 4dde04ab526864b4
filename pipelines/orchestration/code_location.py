"""The module that Dagster loads; its workspace is ``DSMOE_SCHEDULED_WORKSPACE``."""

from __future__ import annotations

from dsmoe_core.errors import SettingsError
from pipelines.orchestration.definitions import definitions
from pipelines.settings.environment import Environment

_WORKSPACE = Environment.read().scheduled_workspace
if _WORKSPACE is None:
    raise SettingsError(
        "DSMOE_SCHEDULED_WORKSPACE is not set; expected the folder of a workspace",
        "Start Dagster with `dsmoe schedule up`.",
    )
defs = definitions(_WORKSPACE)
