"""Prediction service: answers pre-annotation and smart-tool requests with the champion model in memory."""

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
"""Version of a response that was made before the first promotion."""


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Capacity and time limits of the service.

    Attributes:
        max_waiting: requests in the queue; further ones are refused.
        batch: images in one forward pass.
        cached_images: images whose predictions are cached, at most 0.2 MB each.
        timeout_s: seconds until a request fails. Label Studio gives up after 100.
        refresh_s: seconds between two checks for a new champion.
        max_pixels: larger images are refused.
    """

    max_waiting: int = 64
    batch: int = 4
    cached_images: int = 256
    timeout_s: float = 20.0
    refresh_s: float = 2.0
    max_pixels: int = 120_000_000


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """One image to predict.

    Attributes:
        image: the image.
        mtime_ns: modification time of its file; a cached prediction of an older file is not used.
        prompt: click or frame of a smart tool; None asks for all detections of the image.
    """

    image: ImageRecord
    mtime_ns: int
    prompt: Prompt | None = None


class PredictionResponse(NamedTuple):
    """Result of one request.

    Attributes:
        version: ``MODEL+BOOK`` of the model that predicted, or ``NO_MODEL``.
        prediction: all detections of the image; None before the first promotion.
        prompt_result: box for the prompt; None without a prompt or without a fitting box.
    """

    version: str
    prediction: Prediction | None
    prompt_result: PromptResult | None


class PredictionService:
    """Answers requests, those with a prompt first. Use it in an ``async with``.

    All computation runs in one thread: requests do not compete for cores, and memory use stays constant.

    Args:
        champion: loads and reloads the workspace's champion.
        images: the only folder whose images may be read.
        limits: capacity and time limits.
        masks: MobileSAM; None where its weights are not installed.
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
        self._cache: OrderedDict[tuple[str, ImageRecord, int], Prediction] = OrderedDict()
        self._queue: RequestQueue[PredictionRequest, PredictionResponse] = RequestQueue(
            self._respond_in_thread, max_waiting=self.limits.max_waiting, batch=self.limits.batch
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._queue.run_worker()), asyncio.create_task(self._refresh())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def version(self) -> str | None:
        """Version of the model that answers now; None before the first promotion."""
        served = self.champion.served
        return served.version if served else None

    @property
    def waiting(self) -> int:
        """Number of requests in the queue."""
        return self._queue.waiting

    def make_request(self, task: PredictTask, prompt: Prompt | None) -> PredictionRequest:
        """The request for a task of Label Studio.

        Raises:
            ImageError: its image is outside of the image folder, damaged or too large.
        """
        path = local_image(task.address, self._images)
        width, height = upright_size(path)
        if width * height > self.limits.max_pixels:
            raise ImageError(
                f"{path.name} has {width} x {height} pixels, more than {self.limits.max_pixels}", "Scale it."
            )
        image = ImageRecord(task.key or path.stem, path.name, path, width, height)
        return PredictionRequest(image, path.stat().st_mtime_ns, prompt)

    async def predict(self, request: PredictionRequest, *, timeout_s: float) -> PredictionResponse:
        """Answer one request; from the cache, without queueing, where that is possible.

        Raises:
            ServiceError: the queue is full.
            TimeoutError: the request was not answered within ``timeout_s``.
            ModelError, ImageError, OSError: see ``ServedModel.predict``.
        """
        served = self.champion.served
        prediction = self._cached(served, request) if served else None
        if served and prediction and (request.prompt is None or self._masks is None):
            result = _prompt_result(prediction, request)
            if request.prompt is None or result is not None:
                return PredictionResponse(served.version, prediction, result)
        return await self._queue.submit(request, urgent=request.prompt is not None, timeout_s=timeout_s)

    async def _respond_in_thread(
        self, requests: Sequence[PredictionRequest]
    ) -> Sequence[PredictionResponse | Exception]:
        served = self.champion.served  # read once: a model swapped in meanwhile serves the next batch
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._respond, served, requests)

    async def _refresh(self) -> None:
        """Load new champions in another thread; the old one answers until the new one is ready."""
        while True:
            if await asyncio.to_thread(self.champion.refresh):
                self._cache.clear()
            await asyncio.sleep(self.limits.refresh_s)

    # ---- in the model's thread

    def _respond(
        self, served: ServedModel | None, requests: Sequence[PredictionRequest]
    ) -> list[PredictionResponse | Exception]:
        predictions = self._predict_batch(served, requests) if served else {}
        responses: list[PredictionResponse | Exception] = []
        for request in requests:
            prediction = predictions.get(request.image)
            if isinstance(prediction, Exception):
                responses.append(prediction)
                continue
            try:
                responses.append(self._response(served, prediction, request))
            except Exception as error:  # noqa: BLE001  # raised for this request only, the others are answered
                responses.append(error)
        return responses

    def _predict_batch(
        self, served: ServedModel, requests: Sequence[PredictionRequest]
    ) -> dict[ImageRecord, Prediction | Exception]:
        """Predict all images in one pass; where that fails, one by one, to isolate the image at fault."""
        predictions: dict[ImageRecord, Prediction | Exception] = {}
        new: dict[ImageRecord, PredictionRequest] = {}
        for request in requests:
            cached = self._cached(served, request)
            if cached is not None:
                predictions[request.image] = cached
            else:
                new[request.image] = request
        images = list(new)
        try:
            if images:
                predictions |= zip(images, served.predict(images), strict=True)
        except Exception as error:  # noqa: BLE001
            for image in images:
                predictions[image] = _predict_one(served, image) if len(images) > 1 else error
        for image, request in new.items():
            prediction = predictions[image]
            if isinstance(prediction, Prediction):
                self._add_to_cache(served, request, prediction)
        return predictions

    def _response(
        self, served: ServedModel | None, prediction: Prediction | None, request: PredictionRequest
    ) -> PredictionResponse:
        version, prompt = served.version if served else NO_MODEL, request.prompt
        if prompt is None:
            return PredictionResponse(version, prediction, None)
        result = _prompt_result(prediction, request) if prediction else None
        if result is None or self._masks is not None:
            pixels = _pixels(request.image)
            if self._masks is not None:
                result = tighten_with_mask(result, pixels, prompt, self._masks)
            result = result or box_without_detector(pixels, prompt)
        return PredictionResponse(version, prediction, result)

    # ---- cache

    def _cached(self, served: ServedModel, request: PredictionRequest) -> Prediction | None:
        return self._cache.get((served.version, request.image, request.mtime_ns))

    def _add_to_cache(self, served: ServedModel, request: PredictionRequest, prediction: Prediction) -> None:
        self._cache[(served.version, request.image, request.mtime_ns)] = prediction
        while len(self._cache) > self.limits.cached_images:
            self._cache.popitem(last=False)


def _predict_one(served: ServedModel, image: ImageRecord) -> Prediction | Exception:
    try:
        return served.predict([image])[0]
    except Exception as error:  # noqa: BLE001
        return error


def _prompt_result(prediction: Prediction, request: PredictionRequest) -> PromptResult | None:
    image, prompt = request.image, request.prompt
    return box_for_prompt(prediction.detections, prompt, image.width, image.height) if prompt else None


def _pixels(image: ImageRecord) -> Pixels:
    """The image as RGB, (height, width, 3)."""
    with Image.open(image.path) as file:
        return np.asarray(file.convert("RGB"))
