"""Small workspaces on coloured blocks, with stubs for Label Studio and the detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from annotate.studio.fake import FakeStudio
from dsmoe_core.data import coco
from pipelines.detectors.stub_detector import StubDetector
from pipelines.progress import SilentProgress
from pipelines.rounds.context import LoopContext
from pipelines.rounds.simulated_annotator import load_truth
from pipelines.settings import DemoPlan, WorkspaceSettings
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.workspace import Workspace
from tests.pipelines.blocks import COLOURS, write_blocks


class RecordingProgress(SilentProgress):
    """Remembers the steps."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, str]] = []

    def step(self, number: int, name: str) -> None:
        self.steps.append((number, name))


@pytest.fixture(scope="session")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: 12 images in the pool, 5 in the test set."""
    return write_blocks(tmp_path_factory.mktemp("blocks") / "data")


@pytest.fixture
def plan() -> DemoPlan:
    return DemoPlan(rounds=2, budget=3, random_share=0.34, candidates=None, dry_run=True)


@pytest.fixture
def settings(plan: DemoPlan) -> WorkspaceSettings:
    return plan.workspace_settings("blocks")


@pytest.fixture
def workspace(tmp_path: Path, blocks: Path, settings: WorkspaceSettings) -> Iterator[Workspace]:
    """A workspace on the blocks, before its first round."""
    train = coco.read(blocks / "train.json")
    source = Source(
        blocks / "images",
        test=coco.read(blocks / "val.json"),
        classes=list(COLOURS),
        pool={p.name for p in train.images},
    )
    made, _ = make_workspace(tmp_path / "workspace", source, settings)
    with made:
        yield made


@pytest.fixture
def context(workspace: Workspace) -> LoopContext:
    return LoopContext(
        workspace, FakeStudio(workspace.path / "studio" / "fake.json"), StubDetector(), RecordingProgress()
    )


@pytest.fixture
def label(blocks: Path) -> Callable[[LoopContext], None]:
    """The simulated annotator corrects whatever is open."""
    from pipelines.rounds.simulated_annotator import simulated_annotator

    def work(context: LoopContext) -> None:
        simulated_annotator(load_truth(blocks / "train.json", context.workspace))(
            context, context.workspace.rounds()[-1]
        )

    return work
