"""Images, tasks, and the two studios that obey one contract: the fake, and a real Label Studio."""

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
from dsmoe_core.schema import Box, ClassText, Detection, ImageRecord, Prediction, Routing, Vocabulary

WIDTH, HEIGHT = 320, 200
MakeImage = Callable[[str], ImageRecord]
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
    (workspace / "images").mkdir()
    server = LabelStudioServer(workspace / "studio", workspace, environments, free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def connection(label_studio_server: LabelStudioServer) -> Connection:
    return label_studio_server.start()


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
def images(studio_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> MakeImage:
    """Makes an image where the studio may show it; the key is the name and something of its own."""
    if studio_kind == "fake":
        folder = tmp_path / "images"
        folder.mkdir()
    else:
        folder = request.getfixturevalue("connection").document_root / "images"
    return image_maker(folder)


def image_maker(folder: Path) -> MakeImage:
    run = uuid.uuid4().hex[:8]

    def make(name: str) -> ImageRecord:
        path = folder / f"{run} {name}.png"
        Image.new("RGB", (WIDTH, HEIGHT), (20, 90, 40)).save(path)
        return ImageRecord(key=f"{name}-{run}", name=f"{name}.png", path=path, width=WIDTH, height=HEIGHT)

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


def detection(
    corners: tuple[float, float, float, float], label: str = "open", score: float = 0.8
) -> Detection:
    return Detection(Box(*map(float, corners)), label, score, {label: score, "spur": 0.1}, entropy=0.2)


@pytest.fixture
def make_detection() -> Callable[..., Detection]:
    return detection


@pytest.fixture
def make_task() -> MakeTask:
    """A task with these detections; ``bare=True`` for one without pre-annotations."""

    def make(
        image: ImageRecord,
        *found: Detection,
        rank: int = 0,
        round: int = 1,  # noqa: A002  # the field's own name
        version: str = "model+book",
        bare: bool = False,
    ) -> Task:
        detections = Prediction(image.key, found, Routing((0,), (1.0,), 0.0), 0.4, version)
        return Task(image, round, "seed" if bare else "ranked", rank, None if bare else detections)

    return make
