"""Seconds of each step of a cycle without training and prediction, with a real Label Studio or the stub."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dsmoe_core.config import TrainingConfig
from dsmoe_core.data import coco
from dsmoe_core.knockout.part_report import PartReport
from dsmoe_core.schema import ImageRecord, LabelledImage, Prediction, Vocabulary
from pipelines.benchmarks.scale.block_images import COLOURS, write_block_images
from pipelines.detectors.backend import DetectorBackend, PredictFunction, TrainingProgress
from pipelines.detectors.stub_detector import StubDetector
from pipelines.progress import ProgressReporter
from pipelines.rounds import loop
from pipelines.rounds.context import LoopContext
from pipelines.rounds.simulated_annotator import load_truth, simulated_annotator
from pipelines.services.factory import labelling_server, start_studio
from pipelines.settings.environment import Environment
from pipelines.settings.rounds import RoundSettings
from pipelines.settings.studio import StudioSettings
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.workspace import Workspace

GOAL_S = 10.0
"""Goal for the steps of one cycle, at 1,000 images."""
WIDTH = 64
"""Values of an embedding, as of the smaller network."""
Step = Callable[[LoopContext], Any]
STEPS: dict[str, Step] = {
    "ranking": loop.rank_images,
    "pre_annotations": loop.send_pre_annotations,
    "annotations": loop.import_annotations,
    "dataset": loop.make_dataset_version,
    "candidate": loop.train_candidate,
    "evaluation": loop.evaluate_candidate,
    "champion": loop.promote_candidate,
}
"""The steps of a cycle in their order, by the names of the Dagster assets; people annotate before CLOSING."""
CLOSING = "annotations"
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Elapsed:
    """Seconds by the clock, and processor seconds of all threads of this process.

    On a machine that does other work, too, the latter are what this process needs.
    """

    clock: float
    cpu: float

    @classmethod
    def now(cls) -> Elapsed:
        """Since an arbitrary start."""
        return cls(time.perf_counter(), time.process_time())

    def __add__(self, other: Elapsed) -> Elapsed:
        return Elapsed(self.clock + other.clock, self.cpu + other.cpu)

    def __sub__(self, other: Elapsed) -> Elapsed:
        return Elapsed(self.clock - other.clock, self.cpu - other.cpu)

    def to_dict(self) -> dict[str, float]:
        """JSON values, rounded to hundredths."""
        return {"seconds": round(self.clock, 2), "cpu_s": round(self.cpu, 2)}


class TimedDetector:
    """A detector whose training and prediction are timed, and whose predictions have random embeddings.

    Attributes:
        spent: time spent in it so far.
    """

    def __init__(self, detector: DetectorBackend) -> None:
        self._detector = detector
        self.spent = Elapsed(0.0, 0.0)

    def fit(
        self,
        *,
        images: Sequence[LabelledImage],
        vocabulary: Vocabulary,
        training: TrainingConfig,
        out: Path,
        start_from: Path | None,
        teacher: Path | None = None,
        progress: TrainingProgress | None = None,
    ) -> dict[str, Any]:
        """See ``DetectorBackend.fit``."""
        return self._timed(
            lambda: self._detector.fit(
                images=images,
                vocabulary=vocabulary,
                training=training,
                out=out,
                start_from=start_from,
                teacher=teacher,
                progress=progress,
            )
        )

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        """See ``DetectorBackend.predict``."""
        return self._timed_stream(self._detector.predict(model, vocabulary, images))

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        """See ``DetectorBackend.load``."""
        predict = self._timed(lambda: self._detector.load(model, vocabulary))
        return lambda images: self._timed_stream(predict(images))

    def measure_parts(
        self, model: Path, vocabulary: Vocabulary, truth: Sequence[LabelledImage]
    ) -> PartReport | None:
        """See ``DetectorBackend.measure_parts``."""
        return self._timed(lambda: self._detector.measure_parts(model, vocabulary, truth))

    def _timed(self, work: Callable[[], _Result]) -> _Result:
        started = Elapsed.now()
        try:
            return work()
        finally:
            self.spent = self.spent + (Elapsed.now() - started)

    def _timed_stream(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        while (prediction := self._timed(lambda: _next_with_embedding(predictions))) is not None:
            yield prediction


def _next_with_embedding(predictions: Iterator[Prediction]) -> Prediction | None:
    prediction = next(predictions, None)
    if prediction is None:
        return None
    seed = int.from_bytes(hashlib.sha256(prediction.key.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)
    return replace(prediction, embedding=vector / np.linalg.norm(vector))


@dataclass(frozen=True, slots=True)
class OverheadOptions:
    """What is measured.

    Attributes:
        images: in the pool.
        test: in the test set.
        px: side of the images in pixels.
        budgets: images sent in round 0, 1, ...; round 0 is random and is no cycle with a champion.
        stub: the stub of Label Studio instead of a real one.
    """

    images: int = 1000
    test: int = 200
    px: int = 96
    budgets: tuple[int, ...] = (40, 40, 200)
    seed: int = 0
    port: int | None = None
    stub: bool = False


def measure_overhead(
    folder: Path, options: OverheadOptions, environment: Environment, progress: ProgressReporter
) -> dict[str, Any]:
    """Run cycles on a new workspace in ``folder``; the annotator is simulated and not counted.

    The detector recognises colours. MLflow is on, as it is by default.

    Returns:
        ``rows``: for each round the time of every step without training and prediction (``steps``), their
        sum (``overhead``), and the time of training and prediction (``detector``); ``init``, the time of
        making the workspace; ``start``, of starting Label Studio. Processor seconds are of this process.

    Raises:
        StudioError: Label Studio does not start or fails.
        PrerequisiteError: its environment cannot be built, or the disk is full.
    """
    progress.status("generating synthetic images")
    data = folder / "data"
    write_block_images(data, options.images, options.test, options.px, options.seed)
    started = Elapsed.now()
    workspace = _workspace(folder / "workspace", data, options)
    made = Elapsed.now()
    with workspace:
        studio, _ = start_studio(workspace, environment, progress.status, options.port)
        start = Elapsed.now() - made
        try:
            detector = TimedDetector(StubDetector())
            rows = [
                _cycle(LoopContext(workspace, studio, detector, progress), detector, number, budget, data)
                for number, budget in enumerate(options.budgets)
            ]
        finally:
            if (server := labelling_server(workspace, environment, options.port)) is not None:
                server.stop()
    return {
        "images": options.images,
        "test_images": options.test,
        "image_px": options.px,
        "studio": "stub" if options.stub else "label-studio",
        "goal_s": GOAL_S,
        "init": (made - started).to_dict(),
        "start": start.to_dict(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "rows": rows,
    }


def _workspace(path: Path, data: Path, options: OverheadOptions) -> Workspace:
    settings = WorkspaceSettings(
        title="Overhead benchmark",
        seed=options.seed,
        studio=StudioSettings(kind="stub" if options.stub else "label-studio"),
    )
    pool = {image.name for image in coco.read(data / "train.json").images}
    source = Source(data / "images", test=coco.read(data / "val.json"), classes=list(COLOURS), pool=pool)
    return make_workspace(path, source, settings)[0]


def _cycle(
    context: LoopContext, detector: TimedDetector, number: int, budget: int, data: Path
) -> dict[str, Any]:
    """One round; returns its row."""
    workspace = context.workspace
    workspace.settings = workspace.settings.model_copy(update={"round": RoundSettings(budget=budget)})
    steps: dict[str, Elapsed] = {}
    in_detector = Elapsed(0.0, 0.0)
    for name, step in STEPS.items():
        if name == CLOSING:
            annotate = simulated_annotator(load_truth(data / "train.json", workspace))
            annotate(context, workspace.rounds()[-1])
        context.progress.status(f"round {number}: {name}")
        before, started = detector.spent, Elapsed.now()
        step(context)
        inside = detector.spent - before
        steps[name] = Elapsed.now() - started - inside
        in_detector = in_detector + inside
    row = workspace.rounds()[-1]
    return {
        "round": number,
        "sent": row.sent,
        "boxes": row.new_boxes,
        "steps": {name: elapsed.to_dict() for name, elapsed in steps.items()},
        "overhead": sum(steps.values(), Elapsed(0.0, 0.0)).to_dict(),
        "detector": in_detector.to_dict(),
    }
