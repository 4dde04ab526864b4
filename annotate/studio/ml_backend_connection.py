"""Tells Label Studio where a project's back end is, for live pre-annotations and smart tools."""

from __future__ import annotations

from annotate.studio.api import Api
from annotate.studio.protocol import Connection
from dsmoe_core.errors import StudioError

TITLE = "dsmoe"
"""Not the model's version.

Label Studio drops pushed pre-annotations whenever a back end of their name is down.
"""
_FORBIDDEN = 403


def connect(connection: Connection, project: int, url: str, username: str, password: str) -> None:
    """Make this the one back end of a project; it must answer. May be repeated.

    Raises:
        StudioError: Label Studio cannot reach it, or may not.
    """
    api = Api(connection)
    with api.client(f"list the back ends of project {project}") as sdk:
        ours = [int(row.id) for row in sdk.ml.list(project=project) if row.title == TITLE and row.id]
    settings = {
        "url": url,
        "is_interactive": True,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": username,
        "basic_auth_pass": password,
    }
    if ours:
        with api.client(f"change the back end of project {project}") as sdk:
            sdk.ml.update(ours[0], project=project, title=TITLE, **settings)
    else:
        _create(api, project, settings)
    for extra in ours[1:]:
        with api.client(f"forget back end {extra}") as sdk:
            sdk.ml.delete(extra)


def _create(api: Api, project: int, settings: dict[str, object]) -> None:
    try:
        with api.client(f"take the back end of project {project}") as sdk:
            sdk.ml.create(project=project, title=TITLE, **settings)
    except StudioError as error:
        if f"({_FORBIDDEN})" not in error.problem:
            raise
        with api.client(f"list the back ends of project {project}") as sdk:
            kept = [int(row.id) for row in sdk.ml.list(project=project) if row.title == TITLE and row.id]
        for row in kept:  # it refuses, yet keeps the row
            with api.client(f"forget back end {row}") as sdk:
                sdk.ml.delete(row)
        raise StudioError(
            "Label Studio does not let a back end on this machine be connected",
            "Stop it with `dsmoe services down` and start it again; your own server needs "
            "LABEL_STUDIO_ML_BLOCK_LOCAL_IP=false and LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false.",
        ) from error
