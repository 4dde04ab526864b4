"""The labelling server that settings and environment select, and services with an external Label Studio."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ports import taken_port

from annotate.studio.external_server import ExternalServer
from annotate.studio.server import LabelStudioServer
from dsmoe_core.errors import StudioError
from pipelines.cli import run
from pipelines.services import factory
from pipelines.settings.environment import Environment
from pipelines.settings.studio import StudioSettings
from pipelines.workspace.workspace import Workspace


@pytest.fixture
def closed_url() -> str:
    """An address on which no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def set_studio(workspace: Workspace, **studio: object) -> str:
    """Write these settings of Label Studio to the workspace; returns its path."""
    settings = workspace.settings.model_copy(update={"studio": StudioSettings.model_validate(studio)})
    settings.write(workspace.path / "dsmoe.yaml")
    workspace.settings = settings
    return str(workspace.path)


def test_address_without_a_token_is_refused(
    workspace: Workspace, closed_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["services", "status", set_studio(workspace, url=closed_url)]) == 2
    message = capsys.readouterr().err
    assert closed_url in message
    assert "DSMOE_STUDIO_TOKEN" in message


def test_unreachable_external_server_is_an_error_and_is_never_stopped(
    workspace: Workspace, closed_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DSMOE_STUDIO_TOKEN", "t" * 40)
    path = set_studio(workspace, url=closed_url)
    for command in (["services", "up"], ["services", "status"], ["round", "open"]):
        assert run([*command, path]) == 2
        message = capsys.readouterr().err
        assert closed_url in message
        assert "t" * 40 not in message
    assert run(["services", "down", path]) == 0
    assert closed_url in capsys.readouterr().out


def test_address_of_the_environment_overrides_the_settings(workspace: Workspace, tmp_path: Path) -> None:
    set_studio(workspace, url="http://a.example", document_root=str(tmp_path))
    variables = {"DSMOE_STUDIO_TOKEN": "t", "DSMOE_STUDIO_URL": "http://b.example/"}
    server = factory.labelling_server(workspace, Environment.read(variables))
    assert isinstance(server, ExternalServer)
    assert (server.url, server.document_root) == ("http://b.example", tmp_path)


def test_without_an_address_the_embedded_server_is_used(workspace: Workspace) -> None:
    set_studio(workspace)
    server = factory.labelling_server(workspace, Environment.read({}), 8091)
    assert isinstance(server, LabelStudioServer)
    assert (server.data_dir, server.document_root, server.port) == (
        workspace.path / "studio",
        workspace.path,
        8091,
    )
    with taken_port() as port, pytest.raises(StudioError, match=str(port)):
        factory.start_studio(workspace, Environment.read({}), print, port)


def test_token_is_not_in_the_repr() -> None:
    assert "hush" not in repr(Environment.read({"DSMOE_STUDIO_TOKEN": "hush"}))
