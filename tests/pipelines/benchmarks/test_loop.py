"""The benchmark of unattended rounds, with stubs instead of Label Studio and the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from annotate.studio.fake import FakeStudio
from annotate.studio.protocol import Connection
from dsmoe_core.errors import SettingsError
from pipelines.benchmarks import loop
from pipelines.benchmarks.loop import LoopBenchmark, LoopPlan
from pipelines.cli.stop_signals import StopSignals
from pipelines.cli.watch import run_loop
from pipelines.progress import SilentProgress
from pipelines.rounds.context import LoopContext
from pipelines.services import factory
from pipelines.settings.environment import Environment
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.workspace import Workspace
from tests.pipelines.blocks import write_blocks

SIZES = {"budget": 2, "test_images": 6, "candidates": 8, "wrong": 1.0, "chance_images": 4, "trials": 5}


class StubPlan(LoopPlan):
    """A plan with stubs."""

    __slots__ = ()

    def settings(self, port: int) -> WorkspaceSettings:
        raw = super().settings(port).model_dump()
        return WorkspaceSettings.model_validate(
            raw | {"studio": {"kind": "stub"}, "detector": {"kind": "stub"}}
        )


class StubLoop(LoopBenchmark):
    """The benchmark on the fake Label Studio."""

    @contextmanager
    def _context(self) -> Iterator[tuple[LoopContext, Connection]]:
        progress = SilentProgress()
        with Workspace.open(self._path) as workspace:
            context, _ = factory.loop_context(workspace, Environment.read(), progress, progress.status)
            yield context, Connection("", "", "", "", self._path)


def watch(path: Path, rounds: int, truth: Path) -> None:
    run_loop(path, (0.05, rounds, truth), None, StopSignals(), once=False, quiet=True)


def shown_by_fake(path: Path) -> dict[str, Any]:
    tasks = FakeStudio(path / "studio" / "stub.json")._state["tasks"]
    open_ = [task["predictions"] for task in tasks if not task["annotations"]]
    newest = Counter(p[-1]["model_version"] if p else "none" for p in open_)
    return {"newest": dict(newest), "project": next((v for v in newest if v != "none"), None)}


@pytest.mark.slow
def test_all_parts_are_measured_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, work = write_blocks(tmp_path / "blocks", train=16, val=6), tmp_path / "work"
    monkeypatch.setattr(loop, "_shown", lambda _api, _project: shown_by_fake(work / "workspace"))

    def benchmark(plan: LoopPlan) -> LoopBenchmark:
        return StubLoop(data, work, plan, Environment.read(), 8391, SilentProgress(), watch)

    saved: list[int] = []
    plan = StubPlan(rounds=2, seeds=2, **SIZES)  # type: ignore[arg-type]
    parts = benchmark(plan).measure(lambda done: saved.append(len(done)))
    assert saved == [2, 3, 4, 5]  # with the plan
    rows = parts["unattended"]["rounds"]
    assert [(row["round"], row["images"]) for row in rows] == [(0, 2), (1, 4)]
    assert rows[0]["champion"] is None
    bad = parts["bad_round"]
    assert bad["round"] == 2
    assert bad["wrong_share"] >= 0.2
    assert sum(bad["planted"].values()) <= bad["true_boxes"]
    assert bad["champion_stays"] == (bad["verdict"] != "promoted")
    rollback = parts["rollback"]
    assert rollback["bad"] in rollback["before"]["newest"]
    assert rollback["earlier"] in rollback["after"]["newest"]
    assert rollback["restored"]
    assert len(parts["chance"]["rows"]) == 5
    assert all({row["candidate"], row["champion"]} == {43, 44} for row in parts["chance"]["rows"])
    assert benchmark(plan).measure(lambda _: pytest.fail("a part was repeated")) == parts
    with pytest.raises(SettingsError):
        benchmark(StubPlan(rounds=3, seeds=2, **SIZES)).measure(lambda _: None)  # type: ignore[arg-type]
