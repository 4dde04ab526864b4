"""What decides what comes of a training, as hashes: data and code."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from pipelines.benchmarks.comparison.protocol import Lesson


@cache
def of_code(package: Path) -> str:
    """Of all sources of a package, so that only what the code of today made counts as done.

    Args:
        package: its ``__init__.py``.
    """
    root, whole = package.parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        whole.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def of_lesson(lesson: Lesson) -> str:
    """Of everything that is learned from and judged on: labels and the bytes of the images."""
    whole = hashlib.sha256(json.dumps(lesson.vocabulary.names).encode())
    for part in (lesson.train, lesson.val):
        for one in part:
            boxes = [(*a.box.corners, a.label) for a in one.annotations]
            whole.update(json.dumps([one.image.name, boxes]).encode())
            whole.update(hashlib.sha256(one.image.path.read_bytes()).digest())
        whole.update(b"|")
    for other in lesson.along:
        whole.update(json.dumps([other.vocabulary.to_dict(), of_lesson(other)]).encode())
    return whole.hexdigest()
