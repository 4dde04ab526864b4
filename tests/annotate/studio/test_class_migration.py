"""Tests of the class migration while annotators work."""

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


def result(name: str, x: float) -> Json:
    return to_result(Region(name, Box(x, 10.0, x + 30, 50.0), "open", "manual", None), 100, 100)


class BusyApi:
    """Api of a server on which annotation 1 is changed while the tasks are listed."""

    def __init__(self) -> None:
        self.results = [result("a", 10.0)]

    @contextmanager
    def client(self, _action: str) -> Iterator[Any]:
        yield SimpleNamespace(projects=SimpleNamespace(update=lambda *_, **__: None))

    def request(self, _action: str, method: str, path: str, *, params: Any = None, body: Any = None) -> Any:
        if path == "api/tasks/":
            assert params is not None
            annotation = {"id": 1, "updated_at": "2026-01-01", "result": self.results}
            self.results = [result("a", 20.0), result("b", 60.0)]
            return {"tasks": [{"id": 7, "annotations": [annotation], "predictions": []}]}
        if path == "api/annotations/1/":
            if method == "PATCH":
                self.results = body["result"]
            return {"id": 1, "result": self.results}
        return None


def test_concurrent_change_of_an_annotation_is_kept() -> None:
    api = BusyApi()
    change = ClassChange(renamed={"open": "gap"}, annotations={"open": 1})
    steps: list[tuple[int, int]] = []
    vocabulary = Vocabulary((ClassText("gap", "d"),))
    migrate(cast(Api, api), 1, change, vocabulary, lambda done, total: steps.append((done, total)))
    assert [r["id"] for r in api.results] == ["a", "b"]
    assert [r["value"]["x"] for r in api.results] == [20.0, 60.0]
    assert [r["value"]["rectanglelabels"] for r in api.results] == [["gap"], ["gap"]]
    assert steps == [(1, 1)]
