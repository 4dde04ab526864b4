"""Starts the ML backend once there is a champion, connects it to Label Studio and reports its status."""

from __future__ import annotations

from annotate.studio.ml_backend_connection import connect
from annotate.studio.protocol import Connection, Studio
from dsmoe_core.loopback import is_loopback
from dsmoe_core.progress import StatusCallback
from pipelines.services.ml_backend.process import MLBackendProcess
from pipelines.workspace.workspace import Workspace


def ml_backend(workspace: Workspace) -> MLBackendProcess:
    """The ML backend of a workspace, running or not."""
    return MLBackendProcess(workspace.path, workspace.settings.studio.ml_backend_port)


def start_ml_backend(
    workspace: Workspace, studio: Studio, connection: Connection, on_status: StatusCallback
) -> None:
    """Start the ML backend unless it runs, and connect it to the Label Studio project. Idempotent.

    Does nothing without a champion, and for a Label Studio on another machine, which cannot reach loopback.

    Raises:
        StudioError: the ML backend does not start, or Label Studio rejects it.
        WorkspaceError: another process holds the workspace's lock, and may be changing this project.
    """
    if workspace.champion() is None or not is_loopback(connection.url):
        return
    process = ml_backend(workspace)
    url = process.up(on_status)
    on_status("connecting live pre-annotations to Label Studio")
    with workspace.locked():
        book = workspace.class_book()
        project = studio.ensure_project(
            workspace.settings.title,
            book.vocabulary(),
            owner=workspace.unique_id(),
            resolve=book.resolve,
            project=workspace.project(),
        )
    credentials = process.credentials()
    connect(connection, project, url, credentials.username, credentials.password)


def status_message(workspace: Workspace, studio_url: str) -> str:
    """One line for the terminal: whether live pre-annotations and smart tools work, and what to do if not.

    Args:
        workspace: whose ML backend is checked.
        studio_url: address of its Label Studio.
    """
    if not is_loopback(studio_url):
        return (
            f"live pre-annotations: run `dsmoe backend --host ADDRESS`, where {studio_url} reaches it, "
            "and connect it in the project's settings, with the user name and password in "
            f"{ml_backend(workspace).credentials_path}"
        )
    if workspace.champion() is None:
        return "live pre-annotations: available after the first promotion"
    status = ml_backend(workspace).status()
    if not status.running:
        return "live pre-annotations are down; `dsmoe services up` starts them"
    if status.version is None and status.problem is None:
        return f"live pre-annotations are starting or hang (process {status.pid}); log: {status.log}"
    line = f"live pre-annotations: {status.version or 'no model'} at {status.url} (process {status.pid})"
    return f"{line}; {status.problem}" if status.problem else line
