"""HTTP application of the ML backend: Label Studio's protocol, with basic authentication."""

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
from dsmoe_core.schema import Prediction
from pipelines.services.ml_backend.credentials import Credentials
from pipelines.services.ml_backend.service import PredictionService

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 << 20
"""Largest request body. Label Studio sends all selected tasks in one request."""
RETRY_AFTER_S = 1
SelectDetections = Callable[[Prediction], Prediction]
"""Keeps the detections of a prediction that annotators are shown."""
_BASIC = HTTPBasic(realm="dsmoe")


def make_app(service: PredictionService, credentials: Credentials, select: SelectDetections) -> FastAPI:
    """Make the FastAPI application.

    Args:
        service: predicts the images.
        credentials: user name and password that every request but /webhook must carry.
        select: keeps the detections that become pre-annotations.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    authenticated = [Depends(_authentication(credentials))]
    app.exception_handler(DsmoeError)(_error_response)
    app.exception_handler(TimeoutError)(_timeout_response)

    @app.get("/health", dependencies=authenticated)
    async def health() -> Json:
        """State of the service; Label Studio calls it before all else."""
        return {
            "status": "UP",
            "model_version": service.version,
            "waiting": service.waiting,
            "problem": service.champion.problem,
        }

    @app.post("/setup", dependencies=authenticated)
    async def setup() -> Json:
        """Version of the model. Nothing is set up, and the token in the request is not used."""
        return {"model_version": service.version}

    @app.get("/versions", dependencies=authenticated)
    async def versions() -> Json:
        return {"versions": [service.version] if service.version else []}

    @app.post("/predict", dependencies=authenticated)
    async def predict(request: Request) -> Json:
        body = predict_request(await _json(request))
        started = time.monotonic()
        if body.prompt is not None:
            results: list[Any] = [await _smart_tool(service, task, body) for task in body.tasks[:1]]
        else:
            results = await _pre_annotations(service, body, select)
        log.debug("%d tasks in %.0f ms", len(body.tasks), 1000 * (time.monotonic() - started))
        return {"results": results}

    @app.post("/webhook")
    async def webhook(request: Request) -> Response:
        """Events of Label Studio, such as START_TRAINING: ignored. It sends them without credentials."""
        await _body(request)
        return Response(status_code=204)

    return app


async def _smart_tool(service: PredictionService, task: PredictTask, body: PredictRequest) -> Json:
    """The box for a prompt, or an empty result."""
    request = await asyncio.to_thread(service.make_request, task, body.prompt)
    response = await service.predict(request, timeout_s=service.limits.timeout_s)
    result, image = response.prompt_result, request.image
    if result is None or result.label not in body.classes:
        return EMPTY_PREDICTION
    box = result.box.clipped(image.width, image.height)
    return smart_tool_json(
        image, box, result.label, score=result.score, version=response.version, reason=result.reason
    )


async def _pre_annotations(
    service: PredictionService, body: PredictRequest, select: SelectDetections
) -> list[Any]:
    """A prediction for each task that is answered in time, and an empty one for the others.

    Label Studio sends all selected tasks in one request, and one error would fail all of them. It requests
    tasks with an empty prediction again when they are selected again.

    Raises:
        DsmoeError, TimeoutError: no task was answered; the first error.
    """
    results: list[Any] = [NO_PREDICTION] * len(body.tasks)
    deadline = time.monotonic() + service.limits.timeout_s
    errors: list[Exception] = []
    size = service.limits.batch
    for start in range(0, len(body.tasks), size):
        batch = body.tasks[start : start + size]
        answers = await asyncio.gather(
            *(_pre_annotation(service, task, body, select, deadline) for task in batch),
            return_exceptions=True,
        )
        for index, answer in enumerate(answers, start=start):
            if isinstance(answer, DsmoeError | TimeoutError | OSError):
                errors.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                results[index] = answer
        if any(isinstance(error, TimeoutError | ServiceError) for error in errors):
            break
    if errors:
        empty = sum(result is NO_PREDICTION for result in results)
        log.warning("%d of %d tasks have no pre-annotations: %s", empty, len(results), errors[0])
        if empty == len(results):
            raise errors[0]
    return results


async def _pre_annotation(
    service: PredictionService,
    task: PredictTask,
    body: PredictRequest,
    select: SelectDetections,
    deadline: float,
) -> Json | list[Json]:
    """The pre-annotations of one task; empty for a task of the blind audit."""
    if task.blind:
        return NO_PREDICTION
    request = await asyncio.to_thread(service.make_request, task, None)
    response = await service.predict(request, timeout_s=max(deadline - time.monotonic(), 0))
    if response.prediction is None:
        return NO_PREDICTION
    prediction = select(response.prediction)
    # Label Studio rejects a whole prediction for one class that the project's label config lacks.
    detections = tuple(d for d in prediction.detections if d.label in body.classes)
    return pre_annotation_json(request.image, replace(prediction, detections=detections), body.classes)


def _authentication(credentials: Credentials) -> Callable[..., None]:
    def check(given: Annotated[HTTPBasicCredentials, Depends(_BASIC)]) -> None:
        username = secrets.compare_digest(given.username.encode(), credentials.username.encode())
        password = secrets.compare_digest(given.password.encode(), credentials.password.encode())
        if not (username and password):
            raise HTTPException(401, "wrong user name or password", {"WWW-Authenticate": "Basic"})

    return check


async def _body(request: Request) -> bytes:
    """Read the body.

    Raises:
        HTTPException: 413, it is larger than ``MAX_BODY_BYTES``.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"more than {MAX_BODY_BYTES >> 20} MB")
    return bytes(body)


async def _json(request: Request) -> Any:
    """Read the body as JSON.

    Raises:
        FormatError: it is not JSON.
    """
    try:
        return loads(await _body(request))
    except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError("the request body is not JSON", "Send what Label Studio sends.") from error


def _error_response(_: Request, error: Exception) -> JSONResponse:
    """503 for a full queue, 400 for an invalid request or image, 500 for other errors."""
    busy = isinstance(error, ServiceError)
    status = 503 if busy else 400 if isinstance(error, FormatError | ImageError) else 500
    log.warning("request refused (%d): %s", status, error)
    return JSONResponse({"error": str(error)}, status, {"Retry-After": str(RETRY_AFTER_S)} if busy else None)


def _timeout_response(_: Request, __: Exception) -> JSONResponse:
    log.warning("a request was not answered in time")
    return JSONResponse({"error": "not answered in time"}, 504)
