"""Small workspaces of coloured blocks, with the fake Label Studio and the stub detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from annotate.studio.fake import FakeStudio
from dsmoe_core.data import coco
from pipelines.detectors.stub_detector import StubDetector
from pipelines.progress import SilentProgress
from pipelines.rounds.context import LoopContext
from pipelines.rounds.simulated_annotator import load_truth, simulated_annotator
from pipelines.settings.demo import DemoPlan
from pipelines.settings.gate import GateSettings
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.workspace import Workspace
from tests.pipelines.blocks import COLOURS, write_blocks


@pytest.fixture(scope="session")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: 12 images in the pool, 5 in the test set."""
    return write_blocks(tmp_path_factory.mktemp("blocks") / "data")


@pytest.fixture
def plan() -> DemoPlan:
    return DemoPlan(rounds=2, budget=3, random_share=0.34, candidates=None, dry_run=True)


@pytest.fixture
def settings(plan: DemoPlan) -> WorkspaceSettings:
    """Settings whose gate compares mAP alone, as the test set has five images."""
    gate = GateSettings(checks=("min_gain",))
    return plan.workspace_settings("blocks").model_copy(update={"gate": gate})


@pytest.fixture
def workspace(tmp_path: Path, blocks: Path, settings: WorkspaceSettings) -> Iterator[Workspace]:
    """A workspace of the blocks, before its first round."""
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
        workspace, FakeStudio(workspace.path / "studio" / "fake.json"), StubDetector(), SilentProgress()
    )


@pytest.fixture
def label(blocks: Path) -> Callable[[LoopContext], None]:
    """Corrects all open images of the last round with the simulated annotator."""

    def annotate(context: LoopContext) -> None:
        truth = load_truth(blocks / "train.json", context.workspace)
        simulated_annotator(truth)(context, context.workspace.rounds()[-1])

    return annotate
