"""Parses and builds the JSON of Label Studio's ML-backend protocol.

Source: label_studio/ml/api_connector.py and ml/models.py of the pinned server version. The response to
/predict has one prediction, or a list of predictions, per task. An empty list means that there is no
prediction now; the server asks again for that task later.
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
from dsmoe_core.schema import Arm, Box, ImageRecord, Prediction

_LOCAL_FILES = "/data/local-files/?"
NO_PREDICTION: list[Json] = []
"""Response for a task without a prediction at this time."""
EMPTY_PREDICTION: Json = {"result": []}
"""Response to a smart tool that finds no box. The server does not store it, unlike a pre-annotation."""


@dataclass(frozen=True, slots=True)
class Click:
    """A smart key-point.

    Attributes:
        x, y: position relative to the image size, 0 to 1.
        positive: False for a negative click, which excludes what is there.
    """

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Prompt:
    """Prompt of a smart tool: clicks or a frame, never both.

    Attributes:
        clicks: the latest last.
        frame: left, top, right, bottom relative to the image size, 0 to 1.
        label: the selected class; None if the tool has none.
    """

    clicks: tuple[Click, ...] = ()
    frame: tuple[float, float, float, float] | None = None
    label: str | None = None

    def box(self, width: int, height: int) -> Box | None:
        """The frame in pixels; None without a frame."""
        if self.frame is None:
            return None
        left, top, right, bottom = self.frame
        return Box(left * width, top * height, right * width, bottom * height)


@dataclass(frozen=True, slots=True)
class PredictTask:
    """A task of a /predict request.

    Attributes:
        address: URL of its image in Label Studio, not validated yet.
        key: key of its image; None for a task that dsmoe did not create.
        blind: the task is part of the blind audit and is shown without pre-annotations.
    """

    address: str
    key: str | None
    blind: bool


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """The body of POST /predict.

    Attributes:
        classes: the classes of the project's labelling config; others must not be predicted.
        prompt: prompt of a smart tool; None if pre-annotations are requested.
    """

    tasks: tuple[PredictTask, ...]
    classes: frozenset[str]
    prompt: Prompt | None


def predict_request(body: Any) -> PredictRequest:
    """Parse the body of POST /predict.

    Raises:
        FormatError: the body does not have the format of the pinned Label Studio version.
    """
    raw = body if isinstance(body, dict) else {}
    tasks, params = raw.get("tasks"), raw.get("params") or {}
    if not isinstance(tasks, list) or not tasks or not isinstance(params, dict):
        raise _format_error("expected tasks, a non-empty list, and params, an object")
    context = params.get("context")
    results = context.get("result") if isinstance(context, dict) else None
    config = raw.get("label_config")
    classes = _classes(config) if isinstance(config, str) else frozenset()
    return PredictRequest(tuple(map(_task, tasks)), classes, None if results is None else _prompt(results))


def local_image(address: str, folder: Path) -> Path:
    """Path of the image behind a local-files URL: the file of that name in ``folder``.

    The rest of the URL is ignored and nothing is downloaded.

    Raises:
        ImageError: the URL is not a local-files URL, or does not name an image in the folder.
    """
    query = parse_qs(address.removeprefix(_LOCAL_FILES)) if address.startswith(_LOCAL_FILES) else {}
    path = folder / PurePosixPath(query.get("d", [""])[0]).name
    try:
        inside = path.resolve(strict=True).parent == folder.resolve() and path.is_file()
    except (OSError, ValueError, RuntimeError):  # missing file, null byte, loop of symbolic links
        inside = False
    if not inside:
        raise ImageError(
            f"{address[:200]!r} is not an image of this workspace", "Request the workspace's tasks."
        )
    return path


def pre_annotation_json(image: ImageRecord, prediction: Prediction, classes: Collection[str]) -> Json:
    """Pre-annotations of an image, identical to those of ``Studio.import_tasks``.

    Raises:
        ClassBookError, BoxError: see ``Studio.import_tasks``.
    """
    task = Task(image, 0, Arm.RANKED, 0, prediction)
    (result,) = task_format.task_json(task, "", classes)["predictions"]
    return dict(result)


def smart_tool_json(
    image: ImageRecord, box: Box, label: str, *, score: float | None, version: str, reason: str
) -> Json:
    """Response to a smart tool: one box with origin "manual".

    The region id is a hash of the content, so the same prompt twice gives one box.

    Args:
        score: 0 to 1; None if there is none.
        version: model version.
        reason: text that the labelling interface shows for the region.
    """
    content = f"{version}/{image.key}/{label}/{','.join(f'{v:.1f}' for v in box.corners)}"
    region_id = hashlib.sha256(content.encode()).hexdigest()[:10]
    region = Region(region_id, box, label, origin="manual", score=score)
    result = to_result(region, image.width, image.height, reason)
    return {"result": [result], "model_version": version, **({} if score is None else {"score": score})}


def _task(raw: Any) -> PredictTask:
    data = raw.get("data") if isinstance(raw, dict) else None
    if not isinstance(data, dict):
        raise _format_error("a task has no data")
    key = data.get("key")
    return PredictTask(
        str(data.get(OBJECT, "")),
        key if isinstance(key, str) else None,
        data.get("audit") == task_format.BLIND,
    )


def _prompt(results: Any) -> Prompt:
    """The latest prompt. The results also hold the regions of the same class that existed before."""
    if not isinstance(results, list) or not all(isinstance(r, dict) for r in results):
        raise _format_error("params.context.result is not a list of regions")
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
    return Click(_fraction(result, "x"), _fraction(result, "y"), result.get("is_positive") is not False)


def _frame(result: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    left, top = _fraction(result, "x"), _fraction(result, "y")
    right = min(left + _fraction(result, "width"), 1.0)
    bottom = min(top + _fraction(result, "height"), 1.0)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _fraction(result: Mapping[str, Any], name: str) -> float:
    """A percent value of a region as a fraction, clipped to 0 to 1."""
    value = result.get("value")
    number = value.get(name) if isinstance(value, dict) else None
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise _format_error(f"a region's {name} is {number!r}; expected a number (percent)")
    return min(max(number / 100, 0.0), 1.0)


def _label(result: Mapping[str, Any]) -> str | None:
    value = result.get("value")
    labels = value.get(str(result.get("type"))) if isinstance(value, dict) else None
    return labels[0] if isinstance(labels, list) and labels and isinstance(labels[0], str) else None


@lru_cache(maxsize=8)
def _classes(config: str) -> frozenset[str]:
    """The classes of the box control in a labelling config."""
    if "<!" in config.replace("<!--", ""):  # entity declarations are not needed and can be an XML bomb
        raise _format_error("label_config has a declaration")
    try:
        root = ET.fromstring(config)  # noqa: S314  # without declarations there is nothing to expand
    except ET.ParseError as error:
        raise _format_error(f"label_config is not valid XML: {error}") from error
    controls = (tag for tag in root.iter() if tag.get("name") == CONTROL)
    return frozenset(label.get("value", "") for tag in controls for label in tag.iter("Label"))


def _format_error(problem: str) -> FormatError:
    return FormatError(
        f"the request does not have Label Studio's ML-backend format: {problem}",
        "Use the pinned version of Label Studio.",
    )
