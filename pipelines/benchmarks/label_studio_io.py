"""Time and peak memory of importing tasks into a real Label Studio and of harvesting the annotations."""

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
    Arm,
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
from pipelines.benchmarks.peak_memory import peak_memory_mb

BOXES_PER_IMAGE = 3
IMAGE_PX = 640
IMAGE_FOLDER = "exchange-benchmark"
"""Below the document root; holds the one image that all tasks show."""
VOCABULARY = Vocabulary(tuple(ClassText(name, "of the benchmark") for name in ("open", "short", "spur")))


class SyntheticTasks(Sequence[Task]):
    """Tasks with pre-annotations, created on access; all show the same image under different keys."""

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
        names = VOCABULARY.names
        detections = tuple(
            Detection(
                Box(10.0 + 200 * i, 10.0 + place % 500, 110.0 + 200 * i, 90.0 + place % 500),
                names[i],
                0.9 - 0.2 * i,
                {name: 0.9 - 0.2 * i if name == names[i] else 0.1 for name in names},
                0.3,
            )
            for i in range(BOXES_PER_IMAGE)
        )
        prediction = Prediction(key, detections, Routing((0,), (1.0,), 0.0), 0.5, "benchmark+book")
        image = ImageRecord(key, f"{place}.png", self._image, IMAGE_PX, IMAGE_PX)
        return Task(image, 0, Arm.RANKED, place, prediction)


def measure_label_studio_io(
    connection: Connection,
    *,
    images: int = 1000,
    memory_images: int = 20_000,
    single_calls: int = 100,
    repeats: int = 3,
    on_status: StatusCallback = lambda _: None,
) -> dict[str, Any]:
    """Import images with three pre-annotations each, accept all of them, and harvest the annotations.

    No detector runs. Label Studio itself creates the annotations from the pre-annotations, in one call, so
    every box is accepted and the harvest is as large as one of real annotations. Each project is deleted
    afterwards.

    Args:
        images: imported and harvested for the times, and imported for the lower peak of memory.
        memory_images: imported for the higher peak of memory.
        single_calls: images that are imported once more with one call each.
        repeats: of import and harvest; the lowest time counts, because other load only adds time.
        on_status: receives a line of text when a part begins.

    Returns:
        The keys of studio.json that concern import and harvest. Peaks are of the importing process, in 1e6
        bytes.

    Raises:
        StudioError: the server fails, or the harvest does not match the import.
    """
    image = _write_image(connection.document_root)
    times = [
        _import_and_harvest(connection, SyntheticTasks(images, image), on_status) for _ in range(repeats)
    ]
    import_s, harvest_s = (min(values) for values in zip(*times, strict=True))
    on_status(f"importing {single_calls} images one by one")
    single_s = _import_one_by_one(connection, SyntheticTasks(single_calls, image)) / single_calls
    peaks = {}
    for count in (images, memory_images):
        on_status(f"importing {count} images in a separate process")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            peaks[f"peak_mb_{count}"] = round(
                process.submit(import_peak_mb, connection, count, image).result(), 1
            )
    return {
        "pictures": images,
        "boxes": BOXES_PER_IMAGE * images,
        "push_s": round(import_s, 2),
        "harvest_s": round(harvest_s, 2),
        "one_by_one_ms": round(1000 * single_s, 1),
        "one_by_one_ratio": round(single_s / (import_s / images), 1),
        **peaks,
    }


def _import_and_harvest(
    connection: Connection, tasks: SyntheticTasks, on_status: StatusCallback
) -> tuple[float, float]:
    """Seconds of the import and of the harvest."""
    studio, api = LabelStudio(connection), Api(connection)
    with _temporary_project(studio, api) as project:
        on_status(f"importing {len(tasks)} images")
        import_s = _seconds(lambda: studio.import_tasks(project, tasks))
        on_status("annotating them")
        _accept_all(api, project)
        on_status("harvesting them")
        harvests: list[Harvest] = []
        harvest_s = _seconds(lambda: harvests.extend(studio.harvest(project)))
    accepted = sum(h.outcomes[Outcome.ACCEPTED] for h in harvests)
    if (len(harvests), accepted) != (len(tasks), len(tasks) * BOXES_PER_IMAGE):
        raise StudioError(
            f"harvested {len(harvests)} images with {accepted} accepted boxes; expected {len(tasks)} images "
            f"with {BOXES_PER_IMAGE} accepted boxes each",
            "Run this against a server that is not in use.",
        )
    return import_s, harvest_s


def _import_one_by_one(connection: Connection, tasks: SyntheticTasks) -> float:
    """Seconds of an import with one call per image."""
    api = Api(connection)
    with _temporary_project(LabelStudio(connection), api) as project:
        task_import = TaskImport(api, project, connection.document_root, VOCABULARY.names, tasks, batch=1)
        return _seconds(task_import.run)


def import_peak_mb(connection: Connection, count: int, image: Path) -> float:
    """Import ``count`` tasks and return the peak memory of this process, in 1e6 bytes."""
    studio = LabelStudio(connection)
    with _temporary_project(studio, Api(connection)) as project:
        studio.import_tasks(project, SyntheticTasks(count, image))
        return peak_memory_mb()


def _write_image(root: Path) -> Path:
    from PIL import Image

    path = root / IMAGE_FOLDER / "image.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (IMAGE_PX, IMAGE_PX), (20, 90, 40)).save(path)
    return path


@contextmanager
def _temporary_project(studio: LabelStudio, api: Api) -> Iterator[int]:
    """A new project that is deleted at the end."""
    project = studio.ensure_project(f"Exchange benchmark {uuid.uuid4().hex[:8]}", VOCABULARY)
    try:
        yield project
    finally:
        with api.client(f"delete project {project}") as sdk:
            sdk.projects.delete(project)


def _accept_all(api: Api, project: int) -> None:
    all_tasks = {"selectedItems": {"all": True, "excluded": []}}
    params = {"id": "predictions_to_annotations", "project": project}
    api.request("annotate all tasks", "POST", "api/dm/actions/", params=params, body=all_tasks)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
