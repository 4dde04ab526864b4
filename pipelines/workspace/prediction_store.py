"""What each model version found, one line of JSON an image, in detections/VERSION.jsonl.

Lines are appended and flushed as images come by, so an interrupted search goes on where it was. A line
torn by a kill is dropped by the next reader and overwritten by the next writer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dsmoe_core.atomic import disk_full_as_error
from dsmoe_core.digest import canonical_json
from dsmoe_core.schema import Box, Detection, Prediction, Routing


class PredictionStore:
    """The detections folder of a workspace."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, version: str) -> Path:
        """The file of a version, ``MODEL+BOOK``."""
        return self._folder / f"{version}.jsonl"

    def load(self, version: str) -> dict[str, Prediction]:
        """Everything a version found, by image key; nothing where it never looked."""
        path = self.path(version)
        if not path.exists():
            return {}
        return {found.key: found for found in _whole_lines(path)}

    def lookup(self, version: str) -> Mapping[str, Prediction]:
        """The same as ``load``, but each image's detections are read when they are asked for."""
        return _Lookup(self.path(version))

    def add(self, version: str, detections: Iterable[Prediction]) -> Iterator[Prediction]:
        """Append detections as they stream by, and pass each on once it is on the disk.

        Raises:
            PrerequisiteError: the disk is full.
        """
        path = self.path(version)
        path.parent.mkdir(parents=True, exist_ok=True)
        with disk_full_as_error(path), path.open("ab") as file:
            file.truncate(_length_of_whole_lines(path))
            for found in detections:
                file.write((canonical_json(to_json(found)) + "\n").encode())
                file.flush()
                yield found
            os.fsync(file.fileno())


class _Lookup(Mapping[str, Prediction]):
    """Knows where in the file each image's newest line begins."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts: dict[str, int] = {}
        if path.exists():
            with path.open("rb") as file:
                start = 0
                for line in file:
                    if line.endswith(b"\n"):
                        self._starts[json.loads(line)["key"]] = start
                    start += len(line)

    def __getitem__(self, key: str) -> Prediction:
        start = self._starts[key]
        with self._path.open("rb") as file:
            file.seek(start)
            return from_json(json.loads(file.readline()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._starts)

    def __len__(self) -> int:
        return len(self._starts)


def to_json(found: Prediction) -> dict[str, Any]:
    """Plain values, probabilities to six digits; boxes as they are: rounded, one might have no area."""
    return {
        "key": found.key,
        "version": found.version,
        "uncertainty": found.uncertainty,
        "routing": {
            "experts": found.routing.experts,
            "weights": [round(w, 6) for w in found.routing.weights],
            "entropy": found.routing.entropy,
        },
        "detections": [
            {
                "box": f.box.corners,
                "label": f.label,
                "score": round(f.score, 6),
                "probabilities": {name: round(p, 6) for name, p in f.probabilities.items()},
                "entropy": round(f.entropy, 6),
            }
            for f in found.detections
        ],
    }


def from_json(raw: dict[str, Any]) -> Prediction:
    """The inverse of ``to_json``."""
    routing = raw["routing"]
    return Prediction(
        key=raw["key"],
        detections=tuple(
            Detection(Box(*map(float, f["box"])), f["label"], f["score"], f["probabilities"], f["entropy"])
            for f in raw["detections"]
        ),
        routing=Routing(tuple(routing["experts"]), tuple(routing["weights"]), routing["entropy"]),
        uncertainty=raw["uncertainty"],
        version=raw["version"],
    )


def _whole_lines(path: Path) -> Iterator[Prediction]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield from_json(json.loads(line))


def _length_of_whole_lines(path: Path) -> int:
    """Bytes up to and with the last line end."""
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
