"""A real Label Studio for the tests of rounds, and the actions of its users on it and on the fake."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from annotate.studio.api import Api
from annotate.studio.client import LabelStudio
from annotate.studio.fake import FakeStudio
from annotate.studio.protocol import Connection
from annotate.studio.server import LabelStudioServer
from pipelines.rounds.context import LoopContext
from pipelines.workspace.workspace import Workspace

Results = list[dict[str, Any]]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, environments: Path) -> Iterator[LabelStudioServer]:
    """One server for all tests, which may serve the files of every workspace."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = LabelStudioServer(
        tmp_path_factory.mktemp("studio"), tmp_path_factory.getbasetemp(), environments, port
    )
    server.start()
    yield server
    server.stop()


class Users(Protocol):
    """What users do on the labelling server without dsmoe."""

    def annotate(self, task_id: int, results: Results) -> int:
        """Submit an annotation and return its id."""

    def correct(self, annotation_id: int, results: Results) -> None:
        """Change the regions of an annotation."""

    def rename_project(self, project: int, title: str) -> None:
        """Change the title of a project."""

    def delete_project(self, project: int) -> None:
        """Delete a project."""

    def delete_task(self, task_id: int) -> None:
        """Delete a task."""


class UsersOfFake:
    """Users of the fake."""

    def __init__(self, studio: FakeStudio) -> None:
        self.rename_project = studio.rename_project
        self.delete_project = studio.delete_project
        self.delete_task = studio.delete_task
        self._studio = studio

    def annotate(self, task_id: int, results: Results) -> int:
        return self._studio.annotate(task_id, {"result": results})

    def correct(self, annotation_id: int, results: Results) -> None:
        self._studio.update_annotation(annotation_id, result=results)


class UsersOfLabelStudio:
    """Users of a real Label Studio."""

    def __init__(self, connection: Connection) -> None:
        self._api = Api(connection)

    def _sdk(self) -> Any:
        return self._api.client("do what the test asks")

    def annotate(self, task_id: int, results: Results) -> int:
        with self._sdk() as sdk:
            return int(sdk.annotations.create(task_id, result=results).id)

    def correct(self, annotation_id: int, results: Results) -> None:
        with self._sdk() as sdk:
            sdk.annotations.update(annotation_id, result=results)

    def rename_project(self, project: int, title: str) -> None:
        with self._sdk() as sdk:
            sdk.projects.update(project, title=title)

    def delete_project(self, project: int) -> None:
        with self._sdk() as sdk:
            sdk.projects.delete(project)

    def delete_task(self, task_id: int) -> None:
        with self._sdk() as sdk:
            sdk.tasks.delete(str(task_id))


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.labelstudio)])
def shared(
    request: pytest.FixtureRequest, context: LoopContext, workspace: Workspace
) -> tuple[LoopContext, Users]:
    """A workspace with the fake or a real Label Studio, and their users."""
    if request.param == "fake":
        assert isinstance(context.studio, FakeStudio)
        return context, UsersOfFake(context.studio)
    connection = request.getfixturevalue("server").start()
    title = f"rounds {uuid.uuid4().hex[:8]}"
    workspace.settings = workspace.settings.model_copy(update={"title": title})
    return replace(context, studio=LabelStudio(connection)), UsersOfLabelStudio(connection)
