"""Registers the ML backend of a project in Label Studio, for live pre-annotations and smart tools."""

from __future__ import annotations

from annotate.studio.api import Api
from annotate.studio.protocol import Connection
from dsmoe_core.errors import StudioError

TITLE = "dsmoe"
"""Title of the ML backend in Label Studio.

It must differ from the model version: Label Studio hides imported pre-annotations whose model version is the
title of an ML backend that is down.
"""
_FORBIDDEN = 403


def connect(connection: Connection, project: int, url: str, username: str, password: str) -> None:
    """Register a running ML backend as the only one of a project. Safe to repeat.

    Args:
        url: address of the ML backend.
        username, password: basic authentication that Label Studio sends to the ML backend.

    Raises:
        StudioError: Label Studio cannot reach the ML backend, or does not allow its address.
    """
    api = Api(connection)
    existing = _registered(api, project)
    settings = {
        "url": url,
        "is_interactive": True,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": username,
        "basic_auth_pass": password,
    }
    if existing:
        with api.client(f"update the ML backend of project {project}") as sdk:
            sdk.ml.update(existing[0], project=project, title=TITLE, **settings)
    else:
        _create(api, project, settings)
    _delete(api, existing[1:])


def _create(api: Api, project: int, settings: dict[str, object]) -> None:
    try:
        with api.client(f"register the ML backend of project {project}") as sdk:
            sdk.ml.create(project=project, title=TITLE, **settings)
    except StudioError as error:
        if f"({_FORBIDDEN})" not in error.problem:
            raise
        _delete(api, _registered(api, project))  # the server refuses the address but stores the entry
        raise StudioError(
            "Label Studio does not allow an ML backend on this machine",
            "Stop it with `dsmoe services down` and start it again. An external server needs "
            "LABEL_STUDIO_ML_BLOCK_LOCAL_IP=false and LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false.",
        ) from error


def _registered(api: Api, project: int) -> list[int]:
    """Ids of the project's ML backends with our title."""
    with api.client(f"list the ML backends of project {project}") as sdk:
        return [int(row.id) for row in sdk.ml.list(project=project) if row.title == TITLE and row.id]


def _delete(api: Api, ids: list[int]) -> None:
    for backend in ids:
        with api.client(f"delete ML backend {backend}") as sdk:
            sdk.ml.delete(backend)
