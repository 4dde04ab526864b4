"""The web face of the back end: Label Studio's protocol over HTTP, with basic authentication."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from json import JSONDecodeError, loads
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from annotate.studio.convert import Json
from annotate.studio.ml_backend import (
    EMPTY_PREDICTION,
    NO_PREDICTION,
    PredictRequest,
    PredictTask,
    pre_annotation_json,
    predict_request,
    smart_tool_json,
)
from dsmoe_core.errors import DsmoeError, FormatError, ImageError, ServiceError
from pipelines.detectors.pre_annotations import pre_annotations
from pipelines.services.ml_backend.credentials import Credentials
from pipelines.services.ml_backend.service import PredictionRequest, PredictionService
from pipelines.settings import RoundSettings

log = logging.getLogger(__name__)

MAX_BYTES = 32 << 20
"""Of a request's body. Label Studio sends all selected tasks in one."""
RETRY_S = 1
_BASIC = HTTPBasic(realm="dsmoe")


def make_app(service: PredictionService, credentials: Credentials, showing: RoundSettings) -> FastAPI:
    """The application.

    Args:
        showing: which detections become pre-annotations.
    """

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    ours = [Depends(_signed_in(credentials))]
    app.exception_handler(DsmoeError)(_refusal)
    app.exception_handler(TimeoutError)(_too_slow)

    @app.get("/health", dependencies=ours)
    async def health() -> Json:
        """What Label Studio asks before anything else, and people when something is odd."""
        return {
            "status": "UP",
            "model_version": service.version,
            "waiting": service.waiting,
            "problem": service.champion.problem,
        }

    @app.post("/setup", dependencies=ours)
    async def setup() -> Json:
        """Nothing has to be set up; above all, the token that comes with the request is not needed."""
        return {"model_version": service.version}

    @app.get("/versions", dependencies=ours)
    async def versions() -> Json:
        return {"versions": [service.version] if service.version else []}

    @app.post("/predict", dependencies=ours)
    async def predict(request: Request) -> Json:
        asked = predict_request(await _json(request))
        began = time.monotonic()
        if asked.prompt is not None:
            results: list[Any] = [await _smart(service, task, asked) for task in asked.tasks[:1]]
        else:
            results = await _pre_annotations(service, asked, showing)
        log.debug("%d tasks in %.0f ms", len(asked.tasks), 1000 * (time.monotonic() - began))
        return {"results": results}

    @app.post("/webhook")
    async def webhook(request: Request) -> Response:
        """Whatever happened in Label Studio: nothing to do, and never a training."""
        await _body(request)
        return Response(status_code=204)

    return app


async def _smart(service: PredictionService, task: PredictTask, asked: PredictRequest) -> Json:
    """The box that is meant, or no box."""
    question = await asyncio.to_thread(service.question, task, asked.prompt)
    answer = await service.ask(question, within_s=service.limits.seconds)
    pointed, image = answer.pointed, question.image
    if pointed is None or pointed.label not in asked.classes:
        return EMPTY_PREDICTION
    box = pointed.box.clipped(image.width, image.height)
    return smart_tool_json(
        image, box, pointed.label, score=pointed.score, version=answer.version, reason=pointed.why
    )


async def _pre_annotations(
    service: PredictionService, asked: PredictRequest, showing: RoundSettings
) -> list[Any]:
    """A prediction for each task that can be answered in time, and none for the rest.

    Label Studio sends all selected tasks in one request and gives up on it as a whole. What is left out here
    it asks for again when someone selects the same tasks again.

    Raises:
        DsmoeError, TimeoutError: the first reason, where no task at all could be answered.
    """
    results: list[Any] = [NO_PREDICTION] * len(asked.tasks)
    deadline = time.monotonic() + service.limits.seconds
    reasons: list[Exception] = []
    size = service.limits.batch
    for start in range(0, len(asked.tasks), size):
        part = asked.tasks[start : start + size]
        answers = await asyncio.gather(
            *(_pre_annotation(service, task, asked, showing, deadline) for task in part),
            return_exceptions=True,
        )
        for place, answer in enumerate(answers, start=start):
            if isinstance(answer, DsmoeError | TimeoutError | OSError):
                reasons.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                results[place] = answer
        if any(isinstance(reason, TimeoutError | ServiceError) for reason in reasons):
            break
    if reasons:
        log.warning("%d of %d tasks got no pre-annotations: %s", *_counts(results), reasons[0])
        if all(result is NO_PREDICTION for result in results):
            raise reasons[0]
    return results


async def _pre_annotation(
    service: PredictionService,
    task: PredictTask,
    asked: PredictRequest,
    showing: RoundSettings,
    deadline: float,
) -> Json | list[Json]:
    if task.blind:
        return NO_PREDICTION
    question: PredictionRequest = await asyncio.to_thread(service.question, task, None)
    answer = await service.ask(question, within_s=max(deadline - time.monotonic(), 0))
    if answer.found is None:
        return NO_PREDICTION
    found = pre_annotations(answer.found, showing)
    # A project whose page was not changed yet refuses a prediction whole for one class that it lacks.
    known = tuple(f for f in found.detections if f.label in asked.classes)
    return pre_annotation_json(question.image, replace(found, detections=known), asked.classes)


def _counts(results: list[Any]) -> tuple[int, int]:
    return sum(result is NO_PREDICTION for result in results), len(results)


def _signed_in(credentials: Credentials) -> Callable[..., None]:
    def check(given: Annotated[HTTPBasicCredentials, Depends(_BASIC)]) -> None:
        name = secrets.compare_digest(given.username.encode(), credentials.username.encode())
        word = secrets.compare_digest(given.password.encode(), credentials.password.encode())
        if not (name and word):
            raise HTTPException(401, "wrong user name or password", {"WWW-Authenticate": "Basic"})

    return check


async def _body(request: Request) -> bytes:
    """The body, never more of it than allowed.

    Raises:
        HTTPException: 413, it is larger.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"more than {MAX_BYTES >> 20} MB")
    return bytes(body)


async def _json(request: Request) -> Any:
    """The body as JSON.

    Raises:
        FormatError: it is none.
    """
    try:
        return loads(await _body(request))
    except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError("the body is no JSON", "Send what Label Studio sends.") from error


def _refusal(_: Request, error: Exception) -> JSONResponse:
    """An error of ours, told with the status that says whose fault it is."""
    busy = isinstance(error, ServiceError)
    status = 503 if busy else 400 if isinstance(error, FormatError | ImageError) else 500
    log.warning("refused (%d): %s", status, error)
    return JSONResponse({"error": str(error)}, status, {"Retry-After": str(RETRY_S)} if busy else None)


def _too_slow(_: Request, __: Exception) -> JSONResponse:
    log.warning("a request was not answered in time")
    return JSONResponse({"error": "not answered in time"}, 504)
