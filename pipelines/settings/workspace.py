"""Settings of a workspace, ``dsmoe.yaml``; no other module reads the file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, field_validator

from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import Frozen
from dsmoe_core.errors import SettingsError
from pipelines.settings.detector import DetectorSettings
from pipelines.settings.gate import GateSettings
from pipelines.settings.policy import NotifySettings, PolicySettings, ScheduleSettings
from pipelines.settings.rounds import RoundSettings
from pipelines.settings.studio import StudioSettings
from pipelines.settings.tracking import TrackingSettings
from pipelines.settings.validation import FORMAT_VERSION, check_format_version, validate_settings
from prompts.class_entry import printable

MAX_PIXELS = 120_000_000
"""Default limit on the size of an image, in pixels."""
_Title = Annotated[str, AfterValidator(printable)]


class WorkspaceSettings(Frozen):
    """The settings of a workspace, ``dsmoe.yaml``."""

    version: Literal[2] = 2  # FORMAT_VERSION
    title: _Title = Field(min_length=3, max_length=50, description="title of the project in Label Studio")
    seed: int = 42
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="larger images are put in quarantine")
    round: RoundSettings = RoundSettings()
    gate: GateSettings = GateSettings()
    policy: PolicySettings = PolicySettings()
    notify: NotifySettings = NotifySettings()
    schedule: ScheduleSettings = ScheduleSettings()
    studio: StudioSettings = StudioSettings()
    detector: DetectorSettings = DetectorSettings()
    tracking: TrackingSettings = Field(
        TrackingSettings(),
        description="training curves and registered models; `none` and `mlflow` name a kind",
    )

    @field_validator("tracking", mode="before")
    @classmethod
    def _kind_alone(cls, tracking: Any) -> Any:
        return {"kind": tracking} if isinstance(tracking, str) else tracking

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``dsmoe.yaml``.

        Raises:
            WorkspaceError: it has another format version.
            SettingsError: it is not YAML, or settings are wrong; the message lists all of them.
        """
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{path} is not YAML: {' '.join(str(error).split())}", "Correct it."
            ) from error
        if not isinstance(raw, dict):
            raise SettingsError(f"{path} has no settings; expected names with values", "Correct it.")
        check_format_version(raw.get("version", FORMAT_VERSION), path)
        return validate_settings(cls, raw, str(path))

    def write(self, path: Path) -> None:
        """Write ``dsmoe.yaml`` atomically."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        atomic_write(path, "# Settings of this workspace; `dsmoe` checks them whenever it opens it.\n" + text)
