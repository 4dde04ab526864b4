"""dsmoe services with a Label Studio that somebody else runs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from annotate.studio.external_server import ExternalServer
from annotate.studio.server import LabelStudioServer
from pipelines.cli import run
from pipelines.services import factory
from pipelines.settings import Environment, StudioSettings
from pipelines.workspace.workspace import Workspace


@pytest.fixture
def nowhere() -> str:
    """An address where nobody answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def configured(workspace: Workspace, **studio: object) -> str:
    """The workspace's path, after its settings got this studio."""
    settings = workspace.settings.model_copy(update={"studio": StudioSettings.model_validate(studio)})
    settings.write(workspace.path / "dsmoe.yaml")
    workspace.settings = settings
    return str(workspace.path)


def test_an_address_without_a_token_is_refused(
    workspace: Workspace, nowhere: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["services", "status", configured(workspace, url=nowhere)]) == 2
    assert f"there is no token for {nowhere}. Set DSMOE_STUDIO_TOKEN" in capsys.readouterr().err


def test_what_is_wrong_is_said_at_once_and_nothing_is_stopped(
    workspace: Workspace, nowhere: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DSMOE_STUDIO_TOKEN", "t" * 40)
    path = configured(workspace, url=nowhere)
    for command in (["services", "up"], ["services", "status"], ["round", "open"]):
        assert run([*command, path]) == 2
        said = capsys.readouterr().err
        assert f"Label Studio at {nowhere} cannot be reached" in said
        assert "t" * 40 not in said
    assert run(["services", "down", path]) == 0
    assert "is not ours; it was not stopped" in capsys.readouterr().out


def test_the_environments_address_comes_before_the_settings(workspace: Workspace, tmp_path: Path) -> None:
    configured(workspace, url="http://a.example", document_root=str(tmp_path))
    variables = {"DSMOE_STUDIO_TOKEN": "t", "DSMOE_STUDIO_URL": "http://b.example/"}
    found = factory.labelling_server(workspace, Environment.read(variables))
    assert isinstance(found, ExternalServer)
    assert (found.url, found.document_root) == ("http://b.example", tmp_path)


def test_without_an_address_it_is_our_own_in_the_workspace(workspace: Workspace) -> None:
    configured(workspace)
    found = factory.labelling_server(workspace, Environment.read({}), 8091)
    assert isinstance(found, LabelStudioServer)
    assert (found.data_dir, found.document_root, found.port) == (
        workspace.path / "studio",
        workspace.path,
        8091,
    )


def test_a_token_never_shows() -> None:
    assert "hush" not in repr(Environment.read({"DSMOE_STUDIO_TOKEN": "hush"}))
