"""Pictures, tasks, and the two studios that obey one contract: the fake, and a real Label Studio."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from annotate.studio.client import LabelStudio
from annotate.studio.fake import FakeStudio
from annotate.studio.protocol import Connection, Studio, Task
from annotate.studio.server import LabelStudioServer
from dsmoe_core.schema import Box, ClassText, Finding, Picture, PictureFindings, Routing, Vocabulary

WIDTH, HEIGHT = 320, 200
MakePicture = Callable[[str], Picture]
MakeTask = Callable[..., Task]


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A port that nobody listens on."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def label_studio_server(
    tmp_path_factory: pytest.TempPathFactory, environments: Path, free_port: Callable[[], int]
) -> Iterator[LabelStudioServer]:
    """One real server for the whole session."""
    workspace = tmp_path_factory.mktemp("workspace")
    (workspace / "pictures").mkdir()
    server = LabelStudioServer(workspace / "studio", workspace, environments, free_port())
    server.up()
    yield server
    server.down()


@pytest.fixture
def connection(label_studio_server: LabelStudioServer) -> Connection:
    return label_studio_server.up()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.labelstudio)])
def studio_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def again(studio_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Studio]:
    """Gives the studio as a fresh process would find it."""
    if studio_kind == "fake":
        return lambda: FakeStudio(tmp_path / "fake.json")
    connection: Connection = request.getfixturevalue("connection")
    return lambda: LabelStudio(connection)


@pytest.fixture
def studio(again: Callable[[], Studio]) -> Studio:
    return again()


@pytest.fixture
def pictures(studio_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> MakePicture:
    """Makes a picture where the studio may show it; the key is the name and something of its own."""
    if studio_kind == "fake":
        folder = tmp_path / "pictures"
        folder.mkdir()
    else:
        folder = request.getfixturevalue("connection").document_root / "pictures"
    return picture_maker(folder)


def picture_maker(folder: Path) -> MakePicture:
    run = uuid.uuid4().hex[:8]

    def make(name: str) -> Picture:
        path = folder / f"{run} {name}.png"
        Image.new("RGB", (WIDTH, HEIGHT), (20, 90, 40)).save(path)
        return Picture(key=f"{name}-{run}", name=f"{name}.png", path=path, width=WIDTH, height=HEIGHT)

    return make


@pytest.fixture
def title() -> str:
    return f"Project {uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary(
        (
            ClassText("open", 'a trace that is "cut" & leaves a gap'),
            ClassText("short circuit", "two traces that <touch>"),
            ClassText("spur", "a thorn on a trace"),
        ),
        version="book",
    )


def finding(corners: tuple[float, float, float, float], label: str = "open", score: float = 0.8) -> Finding:
    return Finding(Box(*map(float, corners)), label, score, {label: score, "spur": 0.1}, entropy=0.2)


@pytest.fixture
def make_finding() -> Callable[..., Finding]:
    return finding


@pytest.fixture
def make_task() -> MakeTask:
    """A task with these findings; ``bare=True`` for one without pre-labels."""

    def make(
        picture: Picture,
        *found: Finding,
        rank: int = 0,
        round: int = 1,  # noqa: A002  # the field's own name
        version: str = "model+book",
        bare: bool = False,
    ) -> Task:
        findings = PictureFindings(picture.key, found, Routing((0,), (1.0,), 0.0), 0.4, version)
        return Task(picture, round, "seed" if bare else "ranked", rank, None if bare else findings)

    return make
