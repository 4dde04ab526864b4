"""Label Studio's protocol for back ends: its JSON in our words, and our detections as its JSON.

Source: label_studio/ml/api_connector.py and ml/models.py of the pinned server. For each task it takes one
prediction or a list of them; an empty list means "none this time", and the task is asked for again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs
from xml.etree import ElementTree as ET

from annotate.studio import task_format
from annotate.studio.controls import CLICK, CONTROL, FRAME, OBJECT
from annotate.studio.convert import Json, to_result
from annotate.studio.protocol import Region, Task
from dsmoe_core.errors import FormatError, ImageError
from dsmoe_core.schema import Box, ImageRecord, Prediction

_LOCAL_FILES = "/data/local-files/?"
NO_PREDICTION: list[Json] = []
EMPTY_PREDICTION: Json = {"result": []}
"""To a smart tool: no box. Unlike a pre-annotation it is not kept, so it may be empty."""


@dataclass(frozen=True, slots=True)
class Click:
    """A smart key-point: x and y as shares of the image, 0 to 1; not ``positive``: what is *not* meant."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an annotator points at: clicks, the latest last, or a frame; never both.

    Attributes:
        frame: left, top, right, bottom as shares of the image.
        label: the class that goes with the tool; None where the tool has none.
    """

    clicks: tuple[Click, ...] = ()
    frame: tuple[float, float, float, float] | None = None
    label: str | None = None

    def box(self, width: int, height: int) -> Box | None:
        """The frame in pixels of the image; None where it has no area, or there is none."""
        if self.frame is None:
            return None
        left, top, right, bottom = self.frame
        return Box(left * width, top * height, right * width, bottom * height)


@dataclass(frozen=True, slots=True)
class PredictTask:
    """A task that the server asks about.

    Attributes:
        address: of its image, as the server knows it; not checked yet.
        key: of its image, where the task is one of ours.
        blind: it is shown without pre-annotations on purpose, to see what people find alone.
    """

    address: str
    key: str | None
    blind: bool


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """The body of POST /predict.

    Attributes:
        classes: that may be answered: those of the project's label config.
        prompt: None where pre-annotations are asked for.
    """

    tasks: tuple[PredictTask, ...]
    classes: frozenset[str]
    prompt: Prompt | None


def predict_request(body: Any) -> PredictRequest:
    """Read the body of POST /predict.

    Raises:
        FormatError: it is not what the pinned Label Studio sends.
    """
    raw = body if isinstance(body, dict) else {}
    tasks, params = raw.get("tasks"), raw.get("params") or {}
    if not isinstance(tasks, list) or not tasks or not isinstance(params, dict):
        raise _unexpected("expected tasks, a list that is not empty, and params, an object")
    context = params.get("context")
    results = context.get("result") if isinstance(context, dict) else None
    config = raw.get("label_config")
    classes = _classes(config) if isinstance(config, str) else frozenset()
    return PredictRequest(tuple(map(_task, tasks)), classes, None if results is None else _prompt(results))


def local_image(address: str, folder: Path) -> Path:
    """The image behind a local-files address: the one of its name in our folder.

    Nothing else of the address is followed, and no foreign address is fetched.

    Raises:
        ImageError: the address is no local file's, or names no image in the folder.
    """
    query = parse_qs(address.removeprefix(_LOCAL_FILES)) if address.startswith(_LOCAL_FILES) else {}
    path = folder / PurePosixPath(query.get("d", [""])[0]).name
    try:
        inside = path.resolve(strict=True).parent == folder.resolve() and path.is_file()
    except (OSError, ValueError, RuntimeError):  # missing, with a zero byte, in a circle
        inside = False
    if not inside:
        raise ImageError(
            f"{address[:200]!r} is no image of this workspace", "Ask about the workspace's tasks."
        )
    return path


def pre_annotation_json(image: ImageRecord, found: Prediction, classes: Collection[str]) -> Json:
    """Detections as a prediction, exactly as `push` sends them.

    Raises:
        ClassBookError, BoxError: see Studio.import_tasks.
    """
    (prediction,) = task_format.task_json(Task(image, 0, "ranked", 0, found), "", classes)["predictions"]
    return dict(prediction)


def smart_tool_json(
    image: ImageRecord, box: Box, label: str, *, score: float | None, version: str, why: str
) -> Json:
    """The answer to a smart tool: one box as a person might have drawn it.

    Its id depends on what it says alone: the same thing clicked twice is one box.
    """
    said = f"{version}/{image.key}/{label}/{','.join(f'{v:.1f}' for v in box.corners)}"
    identity = hashlib.sha256(said.encode()).hexdigest()[:10]
    region = Region(identity, box, label, origin="manual", score=score)
    result = to_result(region, image.width, image.height, why)
    return {"result": [result], "model_version": version, **({} if score is None else {"score": score})}


def _task(raw: Any) -> PredictTask:
    data = raw.get("data") if isinstance(raw, dict) else None
    if not isinstance(data, dict):
        raise _unexpected("a task has no data")
    key = data.get("key")
    return PredictTask(
        str(data.get(OBJECT, "")),
        key if isinstance(key, str) else None,
        data.get("audit") == task_format.BLIND,
    )


def _prompt(results: Any) -> Prompt:
    """What was pointed at last. The list also holds boxes that were there before: any of the same class."""
    if not isinstance(results, list) or not all(isinstance(r, dict) for r in results):
        raise _unexpected("params.context.result is no list of regions")
    tools = [r for r in results if r.get("from_name") in (CLICK, FRAME)]
    if not tools:
        return Prompt()
    last = tools[-1]
    label = _label(last)
    if last["from_name"] == FRAME:
        return Prompt(frame=_frame(last), label=label)
    clicks = [r for r in tools if r["from_name"] == CLICK and _label(r) == label]
    return Prompt(tuple(map(_click, clicks)), label=label)


def _click(result: Mapping[str, Any]) -> Click:
    return Click(_share(result, "x"), _share(result, "y"), result.get("is_positive") is not False)


def _frame(result: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    left, top = _share(result, "x"), _share(result, "y")
    right = min(left + _share(result, "width"), 1.0)
    bottom = min(top + _share(result, "height"), 1.0)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _share(result: Mapping[str, Any], name: str) -> float:
    value = result.get("value")
    number = value.get(name) if isinstance(value, dict) else None
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise _unexpected(f"a region's {name} is {number!r}, no number of percent")
    return min(max(number / 100, 0.0), 1.0)


def _label(result: Mapping[str, Any]) -> str | None:
    value = result.get("value")
    named = value.get(str(result.get("type"))) if isinstance(value, dict) else None
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None


@lru_cache(maxsize=8)
def _classes(config: str) -> frozenset[str]:
    """The classes of the box control."""
    if "<!" in config.replace("<!--", ""):  # entities are of no use here, and may be a bomb
        raise _unexpected("label_config declares something")
    try:
        page = ET.fromstring(config)  # noqa: S314  # without declarations there is nothing to expand
    except ET.ParseError as error:
        raise _unexpected(f"label_config is no XML: {error}") from error
    controls = (tag for tag in page.iter() if tag.get("name") == CONTROL)
    return frozenset(label.get("value", "") for tag in controls for label in tag.iter("Label"))


def _unexpected(why: str) -> FormatError:
    return FormatError(
        f"this is not what Label Studio sends to a back end: {why}", "Use the pinned version of Label Studio."
    )
