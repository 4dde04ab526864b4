"""Questions about images, answered by the model in memory: pre-annotations, and what a prompt means."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from PIL import Image

from annotate.studio.ml_backend import PredictTask, Prompt, local_image
from dsmoe_core.data.decode import upright_size
from dsmoe_core.errors import ImageError
from dsmoe_core.schema import ImageRecord, Prediction
from pipelines.services.ml_backend.model import ChampionModel, ServedModel
from pipelines.services.ml_backend.queue import RequestQueue
from pipelines.services.ml_backend.smart_tools import (
    Pixels,
    PromptResult,
    box_for_prompt,
    box_without_detector,
    tighten_with_mask,
)

if TYPE_CHECKING:
    from dsmoe_core.mobile_sam.prompt_segmenter import PromptSegmenter

log = logging.getLogger(__name__)

NO_MODEL = "no model"
"""Stands for the version where none was promoted yet."""


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """What the back end takes on.

    Attributes:
        waiting: requests in line; more are refused.
        batch: images in one pass of the network.
        images: whose detections are remembered, 0.2 MB each at most.
        seconds: until a request counts as failed. Label Studio itself gives up after 100.
        look_s: how often the champion is looked up.
        max_pixels: larger images are refused.
    """

    waiting: int = 64
    batch: int = 4
    images: int = 256
    seconds: float = 20.0
    look_s: float = 2.0
    max_pixels: int = 120_000_000


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """About one image as it is on the disk now; without a prompt: everything that is on it."""

    image: ImageRecord
    changed_ns: int
    prompt: Prompt | None = None


class PredictionResponse(NamedTuple):
    """What one model says.

    Attributes:
        version: of the model that was asked.
        found: None where there is no model yet.
        pointed: None where nothing was pointed at, or nothing is there.
    """

    version: str
    found: Prediction | None
    pointed: PromptResult | None


class PredictionService:
    """Answers questions in the order of their urgency; use it in an ``async with``.

    Everything that computes runs in one thread of its own, so that requests are never slowed by each other's
    threads and memory stays flat.

    Args:
        images: the folder whose images may be read, and nothing else.
        masks: MobileSAM, where its weights are there.
    """

    def __init__(
        self,
        champion: ChampionModel,
        images: Path,
        limits: ServiceLimits | None = None,
        masks: PromptSegmenter | None = None,
    ) -> None:
        self.champion = champion
        self.limits = limits or ServiceLimits()
        self._images = images
        self._masks = masks
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._known: OrderedDict[tuple[str, ImageRecord, int], Prediction] = OrderedDict()
        self._line: RequestQueue[PredictionRequest, PredictionResponse] = RequestQueue(
            self._in_thread, most=self.limits.waiting, batch=self.limits.batch
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._line.serve()), asyncio.create_task(self._follow())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def version(self) -> str | None:
        """Of the model that answers now; None before the first promotion."""
        served = self.champion.served
        return served.version if served else None

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return self._line.waiting

    def question(self, task: PredictTask, prompt: Prompt | None) -> PredictionRequest:
        """What is asked about a task of the server's.

        Raises:
            ImageError: its image is not in our folder, damaged, or too large.
        """
        path = local_image(task.address, self._images)
        width, height = upright_size(path)
        if width * height > self.limits.max_pixels:
            raise ImageError(
                f"{path.name} has {width} x {height} pixels, more than {self.limits.max_pixels}", "Scale it."
            )
        image = ImageRecord(task.key or path.stem, path.name, path, width, height)
        return PredictionRequest(image, path.stat().st_mtime_ns, prompt)

    async def ask(self, question: PredictionRequest, *, within_s: float) -> PredictionResponse:
        """The answer; at once where it needs no network.

        Raises:
            ServiceError: too many are waiting. TimeoutError: it took too long.
            ModelError, ImageError, OSError: see ``ServedModel.detections``.
        """
        served = self.champion.served
        found = self._remembered(served, question) if served else None
        if served and found and (question.prompt is None or self._masks is None):
            pointed = _pointed(found, question)
            if question.prompt is None or pointed is not None:
                return PredictionResponse(served.version, found, pointed)
        return await self._line.ask(question, urgent=question.prompt is not None, within_s=within_s)

    async def _in_thread(
        self, questions: Sequence[PredictionRequest]
    ) -> Sequence[PredictionResponse | Exception]:
        served = self.champion.served  # taken once: a swap while it works is the next batch's affair
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._answers, served, questions
        )

    async def _follow(self) -> None:
        """Look for a new champion, in a thread: the old one goes on answering while the new one is read."""
        while True:
            if await asyncio.to_thread(self.champion.refresh):
                self._known.clear()
            await asyncio.sleep(self.limits.look_s)

    # ---- in the model's thread

    def _answers(
        self, served: ServedModel | None, questions: Sequence[PredictionRequest]
    ) -> list[PredictionResponse | Exception]:
        found = self._detections(served, questions) if served else {}
        answers: list[PredictionResponse | Exception] = []
        for question in questions:
            one = found.get(question.image)
            if isinstance(one, Exception):
                answers.append(one)
                continue
            try:
                answers.append(self._answer(served, one, question))
            except Exception as error:  # noqa: BLE001  # told to whoever asked; the others get their answers
                answers.append(error)
        return answers

    def _detections(
        self, served: ServedModel, questions: Sequence[PredictionRequest]
    ) -> dict[ImageRecord, Prediction | Exception]:
        """On every image, in one pass; where that fails, one by one, to tell which is at fault."""
        found: dict[ImageRecord, Prediction | Exception] = {}
        fresh: dict[ImageRecord, PredictionRequest] = {}
        for question in questions:
            known = self._remembered(served, question)
            if known is not None:
                found[question.image] = known
            else:
                fresh[question.image] = question
        images = list(fresh)
        try:
            if images:
                found |= zip(images, served.predict(images), strict=True)
        except Exception as error:  # noqa: BLE001
            for image in images:
                found[image] = self._alone(served, image) if len(images) > 1 else error
        for image, one in found.items():
            if image in fresh and isinstance(one, Prediction):
                self._remember(served, fresh[image], one)
        return found

    def _alone(self, served: ServedModel, image: ImageRecord) -> Prediction | Exception:
        try:
            return served.predict([image])[0]
        except Exception as error:  # noqa: BLE001
            return error

    def _answer(
        self, served: ServedModel | None, found: Prediction | None, question: PredictionRequest
    ) -> PredictionResponse:
        version, prompt = served.version if served else NO_MODEL, question.prompt
        if prompt is None:
            return PredictionResponse(version, found, None)
        pointed = _pointed(found, question) if found else None
        if pointed is None or self._masks is not None:
            pixels = _pixels(question.image)
            if self._masks is not None:
                pointed = tighten_with_mask(pointed, pixels, prompt, self._masks)
            pointed = pointed or box_without_detector(pixels, prompt)
        return PredictionResponse(version, found, pointed)

    # ---- memory

    def _remembered(self, served: ServedModel, question: PredictionRequest) -> Prediction | None:
        return self._known.get((served.version, question.image, question.changed_ns))

    def _remember(self, served: ServedModel, question: PredictionRequest, found: Prediction) -> None:
        self._known[(served.version, question.image, question.changed_ns)] = found
        while len(self._known) > self.limits.images:
            self._known.popitem(last=False)


def _pointed(found: Prediction, question: PredictionRequest) -> PromptResult | None:
    image, prompt = question.image, question.prompt
    return box_for_prompt(found.detections, prompt, image.width, image.height) if prompt else None


def _pixels(image: ImageRecord) -> Pixels:
    with Image.open(image.path) as opened:
        return np.asarray(opened.convert("RGB"))
