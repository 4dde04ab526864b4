"""Settings of the labelling server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from dsmoe_core.config import Frozen


def _without_login(url: str) -> str:
    if "@" in urlsplit(url).netloc:
        raise ValueError("it contains a login, which messages would show; only a token is needed")
    return url


StudioUrl = Annotated[str, Field(pattern=r"^https?://"), AfterValidator(_without_login)]


class StudioSettings(Frozen):
    """The labelling server. ``stub`` is a file instead of Label Studio, for dry runs."""

    kind: Literal["label-studio", "stub"] = "label-studio"
    port: int = Field(8080, ge=1, le=65535, description="or the next free one")
    ml_backend_port: int = Field(9090, ge=1, le=65535, description="or the next free one")
    url: StudioUrl | None = Field(
        None, description="address of a running Label Studio; none: dsmoe starts its own"
    )
    document_root: Path | None = Field(
        None,
        description="folder that the server of url serves files from, which contains this workspace; "
        "none: the workspace",
    )
    consensus: Literal["latest", "majority", "union"] = Field(
        "latest",
        description="how several annotations of an image are merged: the latest one, boxes that the majority "
        "drew, or all boxes",
    )
