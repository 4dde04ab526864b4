"""Starting the ML backend: connection to the project, and changes to the project on the way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from annotate.studio.fake import FakeStudio
from annotate.studio.protocol import Connection, Task
from dsmoe_core.errors import WorkspaceError
from pipelines.detectors.backend import with_version
from pipelines.detectors.stub_detector import StubDetector
from pipelines.services.ml_backend import lifecycle
from pipelines.services.ml_backend.credentials import Credentials
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from tests.pipelines.services.ml_backend.stubs import Promote

URL = "http://127.0.0.1:8080"


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of the projects that were connected; the process itself is replaced."""
    projects: list[int] = []
    running = SimpleNamespace(up=lambda _status: URL, credentials=lambda: Credentials("dsmoe", "hush"))
    monkeypatch.setattr(lifecycle, "ml_backend", lambda _workspace: running)
    monkeypatch.setattr(lifecycle, "connect", lambda _connection, project, *_: projects.append(project))
    return projects


def start_ml_backend(workspace: Workspace, studio: FakeStudio) -> None:
    lifecycle.start_ml_backend(workspace, studio, Connection(URL, "", "", "", Path()), print)


def rename(workspace: Workspace, old: str, new: str) -> None:
    """Publish the class book with another name for a class."""
    book = workspace.class_book().model_dump(mode="json")
    for entry in book["classes"]:
        if entry["name"] == old:
            entry.update(name=new, aliases=[*entry["aliases"], old])
    ClassBook.from_content(book, "as changed").save(workspace.path / "classes.yaml")
    workspace.class_books.publish(None, author="Ada", force_reason="for a test")


def test_pre_annotations_of_a_renamed_class_are_renamed(
    workspace: Workspace, promote: Promote, connected: list[int]
) -> None:
    promote("m1")
    workspace.complete()
    studio, vocabulary = FakeStudio(), workspace.class_book().vocabulary()
    project = studio.ensure_project(workspace.settings.title, vocabulary)
    images = workspace.images("pool")
    predictions = with_version(
        StubDetector().predict(workspace.registry.folder("m1"), vocabulary, images), "m1+book"
    )
    pairs = enumerate(zip(images, predictions, strict=True))
    studio.import_tasks(project, [Task(p, 1, "ranked", rank, prediction) for rank, (p, prediction) in pairs])

    def labels() -> list[str]:
        return [region.label for task in studio.open_tasks(project) for region in task.pre_annotations]

    before = labels()
    assert "rust" in before
    rename(workspace, "rust", "red_block")
    with Workspace.open(workspace.path) as opened:
        start_ml_backend(opened, studio)
    assert connected == [project]
    assert labels() == ["red_block" if label == "rust" else label for label in before]


def test_project_of_a_locked_workspace_is_not_changed(
    workspace: Workspace, promote: Promote, connected: list[int]
) -> None:
    promote("m1")
    workspace.complete()
    studio = FakeStudio()
    with (
        Workspace.open(workspace.path) as other,
        other.locked(),
        pytest.raises(WorkspaceError),
    ):
        start_ml_backend(workspace, studio)
    assert connected == []
    start_ml_backend(workspace, studio)
    assert len(connected) == 1
