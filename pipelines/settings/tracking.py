"""Settings of experiment tracking and of the model registry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dsmoe_core.config import Frozen


class TrackingSettings(Frozen):
    """Where training curves are stored, and where models are registered for other tools.

    The journal of the workspace is the source of truth; MLflow has a copy.
    """

    kind: Literal["mlflow", "none"] = Field("mlflow", description="MLflow, or no tracking")
    url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="address of an MLflow server; none: an SQLite file in tracking/ of the workspace",
    )
