"""What sending images to a real Label Studio costs, and taking corrections back: time, and peak memory."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, overload

from annotate.studio.api import Api
from annotate.studio.client import LabelStudio
from annotate.studio.protocol import Connection, Task
from annotate.studio.task_import import TaskImport
from dsmoe_core.errors import StudioError
from dsmoe_core.progress import StatusCallback
from dsmoe_core.schema import (
    Box,
    ClassText,
    Detection,
    Harvest,
    ImageRecord,
    Outcome,
    Prediction,
    Routing,
    Vocabulary,
)

BOXES = 3
SIDE = 640
FOLDER = "exchange-benchmark"  # below the document root: the one image that all tasks show
BOOK = Vocabulary(tuple(ClassText(name, "of the benchmark") for name in ("open", "short", "spur")))


class Tasks(Sequence[Task]):
    """So many tasks, each made when it is asked for; all show the same image under keys of their own."""

    def __init__(self, count: int, image: Path) -> None:
        self._count = count
        self._image = image

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Task: ...
    @overload
    def __getitem__(self, place: slice) -> list[Task]: ...
    def __getitem__(self, place: int | slice) -> Task | list[Task]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(self._count))]
        if not 0 <= place < self._count:
            raise IndexError(place)
        return self._task(place)

    def _task(self, place: int) -> Task:
        key = f"{place:064x}"
        found = tuple(
            Detection(
                Box(10.0 + 200 * i, 10.0 + place % 500, 110.0 + 200 * i, 90.0 + place % 500),
                BOOK.names[i],
                0.9 - 0.2 * i,
                {name: 0.9 - 0.2 * i if name == BOOK.names[i] else 0.1 for name in BOOK.names},
                0.3,
            )
            for i in range(BOXES)
        )
        detections = Prediction(key, found, Routing((0,), (1.0,), 0.0), 0.5, "benchmark+book")
        image = ImageRecord(key, f"{place}.png", self._image, SIDE, SIDE)
        return Task(image, 0, "ranked", place, detections)


def measure_exchange(
    connection: Connection,
    *,
    images: int = 1000,
    many: int = 20_000,
    singly: int = 100,
    repeats: int = 3,
    on_status: StatusCallback = lambda _: None,
) -> dict[str, Any]:
    """Push images with three pre-annotations each, have them all accepted, and harvest them.

    No detector runs.

    The annotations are made by the server itself, in one call, from the pre-annotations, so that every box is
    accepted: what is harvested is as large as what people would leave. Each project is deleted afterwards.

    Args:
        images: pushed and harvested for the times, and pushed for the smaller peak.
        many: pushed for the larger peak.
        singly: pushed once more with one call each.
        repeats: pushed and harvested so often; the least time counts, as other work on the machine only adds.
        say: told what goes on.

    Returns:
        The keys of studio.json that concern the exchange. Peaks are of the pushing process, in 1e6 bytes.

    Raises:
        StudioError: the server fails, or what comes back is not what was sent.
    """
    image = _image(connection.document_root)
    times = [_there_and_back(connection, Tasks(images, image), on_status) for _ in range(repeats)]
    push_s, harvest_s = (min(of_one) for of_one in zip(*times, strict=True))
    on_status(f"pushing {singly} images one by one")
    one_s = _one_by_one(connection, Tasks(singly, image)) / singly
    peaks = {}
    for count in (images, many):
        on_status(f"pushing {count} images from a process of its own")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
            peaks[f"peak_mb_{count}"] = round(other.submit(push_alone, connection, count, image).result(), 1)
    return {
        "pictures": images,
        "boxes": BOXES * images,
        "push_s": round(push_s, 2),
        "harvest_s": round(harvest_s, 2),
        "one_by_one_ms": round(1000 * one_s, 1),
        "one_by_one_ratio": round(one_s / (push_s / images), 1),
        **peaks,
    }


def _there_and_back(connection: Connection, tasks: Tasks, on_status: StatusCallback) -> tuple[float, float]:
    """Seconds to push and to harvest."""
    studio, api = LabelStudio(connection), Api(connection)
    with _project(studio, api) as project:
        on_status(f"pushing {len(tasks)} images")
        push_s = _seconds(lambda: studio.import_tasks(project, tasks))
        on_status("annotating them")
        _accept_all(api, project)
        on_status("harvesting them")
        harvests: list[Harvest] = []
        harvest_s = _seconds(lambda: harvests.extend(studio.harvest(project)))
    accepted = sum(h.outcomes[Outcome.ACCEPTED] for h in harvests)
    if (len(harvests), accepted) != (len(tasks), len(tasks) * BOXES):
        raise StudioError(
            f"of {len(tasks)} images with {BOXES} boxes each came back {len(harvests)} with {accepted} "
            "accepted boxes",
            "Run this against a server that nobody works on.",
        )
    return push_s, harvest_s


def _one_by_one(connection: Connection, tasks: Tasks) -> float:
    """Seconds for a push with one call an image."""
    api = Api(connection)
    with _project(LabelStudio(connection), api) as project:
        push = TaskImport(api, project, connection.document_root, BOOK.names, tasks, batch=1)
        return _seconds(push.run)


def push_alone(connection: Connection, count: int, image: Path) -> float:
    """Push so many tasks and give this process's peak memory, in 1e6 bytes."""
    studio = LabelStudio(connection)
    with _project(studio, Api(connection)) as project:
        studio.import_tasks(project, Tasks(count, image))
        return _peak_mb()


def _peak_mb() -> float:
    """Not from getrusage: a process that was just started has its parent's peak there."""
    status = Path("/proc/self/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kib) * 1024 / 1e6


def _image(root: Path) -> Path:
    from PIL import Image

    path = root / FOLDER / "image.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (20, 90, 40)).save(path)
    return path


@contextmanager
def _project(studio: LabelStudio, api: Api) -> Iterator[int]:
    """A project of its own, deleted in the end."""
    project = studio.ensure_project(f"Exchange benchmark {uuid.uuid4().hex[:8]}", BOOK)
    try:
        yield project
    finally:
        with api.client(f"delete project {project}") as sdk:
            sdk.projects.delete(project)


def _accept_all(api: Api, project: int) -> None:
    everything = {"selectedItems": {"all": True, "excluded": []}}
    params = {"id": "predictions_to_annotations", "project": project}
    api.request("annotate all tasks", "POST", "api/dm/actions/", params=params, body=everything)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
