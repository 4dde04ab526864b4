"""Renaming classes while people work: what they do in between is not undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

from annotate.studio.api import Api
from annotate.studio.class_change import ClassChange
from annotate.studio.class_migration import migrate
from annotate.studio.convert import to_result
from annotate.studio.protocol import Region
from dsmoe_core.schema import Box, ClassText, Vocabulary

Json = dict[str, Any]


def drawn(name: str, x: float) -> Json:
    return to_result(Region(name, Box(x, 10.0, x + 30, 50.0), "open", "manual", None), 100, 100)


class Busy:
    """A server whose annotator hands in another version of annotation 1 while the tasks are read."""

    def __init__(self) -> None:
        self.results = [drawn("a", 10.0)]

    @contextmanager
    def client(self, _what: str) -> Iterator[Any]:
        yield SimpleNamespace(projects=SimpleNamespace(update=lambda *_, **__: None))

    def request(self, _what: str, method: str, path: str, *, params: Any = None, body: Any = None) -> Any:
        if path == "api/tasks/":
            assert params is not None
            annotation = {"id": 1, "updated_at": "2026-01-01", "result": self.results}
            self.results = [drawn("a", 20.0), drawn("b", 60.0)]
            return {"tasks": [{"id": 7, "annotations": [annotation], "predictions": []}]}
        if path == "api/annotations/1/":
            if method == "PATCH":
                self.results = body["result"]
            return {"id": 1, "result": self.results}
        return None


def test_what_an_annotator_changes_in_between_is_kept() -> None:
    server = Busy()
    change = ClassChange(renamed={"open": "gap"}, annotations={"open": 1})
    done: list[tuple[int, int]] = []
    vocabulary = Vocabulary((ClassText("gap", "d"),))
    migrate(cast(Api, server), 1, change, vocabulary, lambda n, of: done.append((n, of)))
    assert [r["id"] for r in server.results] == ["a", "b"]
    assert [r["value"]["x"] for r in server.results] == [20.0, 60.0]
    assert [r["value"]["rectanglelabels"] for r in server.results] == [["gap"], ["gap"]]
    assert done == [(1, 1)]
