"""Images, tasks, and the two implementations under the Studio contract: the fake and a real Label Studio."""

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
from dsmoe_core.schema import Arm, Box, ClassText, Detection, ImageRecord, Prediction, Routing, Vocabulary

WIDTH, HEIGHT = 320, 200
MakeImage = Callable[[str], ImageRecord]
MakeTask = Callable[..., Task]


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Function that returns an unused port."""

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
def new_client(studio_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Studio]:
    """Function that returns a new client with the stored state, as after a restart of the process."""
    if studio_kind == "fake":
        return lambda: FakeStudio(tmp_path / "fake.json")
    connection: Connection = request.getfixturevalue("connection")
    return lambda: LabelStudio(connection)


@pytest.fixture
def studio(new_client: Callable[[], Studio]) -> Studio:
    return new_client()


@pytest.fixture
def images(studio_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> MakeImage:
    """Function that creates an image in a folder that the studio may show."""
    if studio_kind == "fake":
        folder = tmp_path / "images"
        folder.mkdir()
    else:
        folder = request.getfixturevalue("connection").document_root / "images"
    return image_maker(folder)


def image_maker(folder: Path) -> MakeImage:
    """Function that creates an image from its name. The key is the name and a random suffix."""
    suffix = uuid.uuid4().hex[:8]

    def make(name: str) -> ImageRecord:
        path = folder / f"{suffix} {name}.png"
        Image.new("RGB", (WIDTH, HEIGHT), (20, 90, 40)).save(path)
        return ImageRecord(key=f"{name}-{suffix}", name=f"{name}.png", path=path, width=WIDTH, height=HEIGHT)

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
    """Function that creates a task with detections; ``bare=True`` for one without a prediction."""

    def make(
        image: ImageRecord,
        *detections: Detection,
        rank: int = 0,
        round: int = 1,  # noqa: A002  # named like the field of Task
        version: str = "model+book",
        bare: bool = False,
    ) -> Task:
        prediction = Prediction(image.key, detections, Routing((0,), (1.0,), 0.0), 0.4, version)
        if bare:
            return Task(image, round, Arm.SEED, rank, None)
        return Task(image, round, Arm.RANKED, rank, prediction, "entropy", 0.4)

    return make
