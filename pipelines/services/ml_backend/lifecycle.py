"""The back end beside Label Studio: brought up once there is a model, and made known to the project."""

from __future__ import annotations

from annotate.studio.ml_backend_connection import connect
from annotate.studio.protocol import Connection, Studio
from dsmoe_core.loopback import is_loopback
from dsmoe_core.progress import StatusCallback
from pipelines.services.ml_backend.process import MLBackendProcess
from pipelines.workspace.workspace import Workspace


def ml_backend(workspace: Workspace) -> MLBackendProcess:
    """The workspace's, running or not."""
    return MLBackendProcess(workspace.path, workspace.settings.studio.ml_backend_port)


def start_ml_backend(
    workspace: Workspace, studio: Studio, connection: Connection, on_status: StatusCallback
) -> None:
    """Start it unless it runs, and make it the project's. May be repeated.

    Without a champion, or for a Label Studio on another machine, which would not reach it, do nothing.

    Raises:
        StudioError: it does not start, or Label Studio does not take it.
        WorkspaceError: another process is changing the workspace, and perhaps this very project.
    """
    if workspace.champion() is None or not is_loopback(connection.url):
        return
    own = ml_backend(workspace)
    url = own.up(on_status)
    on_status("making live pre-annotations known to Label Studio")
    with workspace.locked():
        book = workspace.class_book()
        project = studio.ensure_project(
            workspace.settings.title, book.vocabulary(), owner=workspace.unique_id(), resolve=book.resolve
        )
    signed = own.credentials()
    connect(connection, project, url, signed.username, signed.password)


def status_message(workspace: Workspace, studio_url: str) -> str:
    """One line on live pre-annotations and smart tools, for people."""
    if not is_loopback(studio_url):
        return (
            f"live pre-annotations: run `dsmoe backend --host` where {studio_url} reaches it, and connect it "
            f"in the project's settings with the user name and password of {ml_backend(workspace).kept}"
        )
    if workspace.champion() is None:
        return "live pre-annotations: from the first promoted model on"
    now = ml_backend(workspace).status()
    if not now.running:
        return "live pre-annotations are down; `dsmoe services up` starts them"
    if now.version is None and now.problem is None:
        return f"live pre-annotations are starting or hung (process {now.pid}); log: {now.log}"
    line = f"live pre-annotations: {now.version or 'no model'} at {now.url} (process {now.pid})"
    return f"{line}; {now.problem}" if now.problem else line
