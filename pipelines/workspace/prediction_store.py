"""Predictions of each model version on disk: one line of JSON per image, in ``predictions/VERSION.jsonl``.

Lines are appended and flushed one by one, so an interrupted run continues where it stopped. Readers ignore an
incomplete last line, and the next writer overwrites it.

Acquisition scores are not stored here: opening a round computes them from the stored predictions, so scores
of different acquisition functions are never mixed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dsmoe_core.atomic import disk_full_as_error
from dsmoe_core.digest import canonical_json
from dsmoe_core.errors import WorkspaceError
from dsmoe_core.schema import Box, Detection, Prediction, Routing


class PredictionStore:
    """The predictions folder of a workspace."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, version: str) -> Path:
        """The file of a version, ``MODEL+BOOK``."""
        return self._folder / f"{version}.jsonl"

    def load(self, version: str) -> dict[str, Prediction]:
        """All predictions of a version, by image key; empty if there are none.

        Raises:
            WorkspaceError: the file is damaged.
        """
        path = self.path(version)
        if not path.exists():
            return {}
        return {prediction.key: prediction for prediction in _complete_lines(path)}

    def lookup(self, version: str) -> Mapping[str, Prediction]:
        """The same as ``load``, but each prediction is read from disk when it is accessed."""
        return _Lookup(self.path(version))

    def append(
        self, version: str, predictions: Iterable[Prediction], progress: Callable[[int], None] | None = None
    ) -> None:
        """Append predictions as they are produced.

        Args:
            progress: called with the number of predictions stored so far.

        Raises:
            PrerequisiteError: the disk is full.
        """
        path = self.path(version)
        path.parent.mkdir(parents=True, exist_ok=True)
        with disk_full_as_error(path), path.open("ab") as file:
            file.truncate(_length_of_complete_lines(path))
            for count, prediction in enumerate(predictions, start=1):
                file.write((canonical_json(to_json(prediction)) + "\n").encode())
                file.flush()
                if progress is not None:
                    progress(count)
            os.fsync(file.fileno())


class _Lookup(Mapping[str, Prediction]):
    """Holds the offset in the file at which each image's newest line begins."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets: dict[str, int] = {}
        if path.exists():
            with path.open("rb") as file:
                offset = 0
                for line in file:
                    if line.endswith(b"\n"):
                        self._offsets[_values(line, path)["key"]] = offset
                    offset += len(line)

    def __getitem__(self, key: str) -> Prediction:
        offset = self._offsets[key]
        with self._path.open("rb") as file:
            file.seek(offset)
            return _parse(file.readline(), self._path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)


def to_json(prediction: Prediction) -> dict[str, Any]:
    """A prediction as JSON values: probabilities with six digits, boxes exact to keep their area positive."""
    return {
        "key": prediction.key,
        "version": prediction.version,
        "uncertainty": prediction.uncertainty,
        "risks": _rounded(prediction.risks),
        "routing": {
            "experts": prediction.routing.experts,
            "weights": [round(w, 6) for w in prediction.routing.weights],
            "entropy": prediction.routing.entropy,
        },
        "detections": [
            {
                "box": d.box.corners,
                "label": d.label,
                "score": round(d.score, 6),
                "probabilities": {name: round(p, 6) for name, p in d.probabilities.items()},
                "entropy": round(d.entropy, 6),
                "expert": d.expert,
                "uncertainty": _rounded(d.uncertainty),
                "risks": _rounded(d.risks),
            }
            for d in prediction.detections
        ],
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}


def from_json(raw: dict[str, Any]) -> Prediction:
    """The inverse of ``to_json``."""
    routing = raw["routing"]
    return Prediction(
        key=raw["key"],
        detections=tuple(
            Detection(
                Box(*map(float, d["box"])),
                d["label"],
                d["score"],
                d["probabilities"],
                d["entropy"],
                d["expert"],
                d["uncertainty"],
                d["risks"],
            )
            for d in raw["detections"]
        ),
        routing=Routing(tuple(routing["experts"]), tuple(routing["weights"]), routing["entropy"]),
        uncertainty=raw["uncertainty"],
        version=raw["version"],
        risks=raw["risks"],
    )


def _complete_lines(path: Path) -> Iterator[Prediction]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield _parse(line, path)


def _parse(line: bytes, path: Path) -> Prediction:
    """The prediction in a line of a file.

    Raises:
        WorkspaceError: the line is damaged.
    """
    values = _values(line, path)
    try:
        return from_json(values)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error


def _values(line: bytes, path: Path) -> dict[str, Any]:
    """The JSON values in a line of a file.

    Raises:
        WorkspaceError: the line is damaged.
    """
    try:
        values = json.loads(line.decode())
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(values, dict) or "key" not in values:
        raise _damaged(path)
    return values


def _damaged(path: Path) -> WorkspaceError:
    return WorkspaceError(
        f"the predictions in {path} are damaged", "Delete the file; the next round makes them again."
    )


def _length_of_complete_lines(path: Path) -> int:
    """Bytes up to and including the last line end."""
    if not path.exists():
        return 0
    step = 1 << 16
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - step)
            file.seek(start)
            position = file.read(end - start).rfind(b"\n")
            if position >= 0:
                return start + position + 1
            end = start
    return 0
