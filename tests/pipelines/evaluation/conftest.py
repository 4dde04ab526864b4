"""A workspace with two models of the stub detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmoe_core.config import TrainingConfig
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.simulated_annotator import load_truth
from pipelines.workspace.registry import new_card
from pipelines.workspace.workspace import Workspace


@pytest.fixture
def models(workspace: Workspace, blocks: Path) -> Path:
    """A workspace with the models "early", trained on one image, and "late", the champion, trained on all."""
    pool = list(load_truth(blocks / "train.json", workspace).values())
    for name, images in (("early", pool[:1]), ("late", pool)):
        StubDetector().fit(
            images=images,
            vocabulary=workspace.class_book().vocabulary(),
            training=TrainingConfig(),
            out=workspace.registry.folder(name),
            start_from=None,
        )
        workspace.registry.register(
            new_card(name, number=0, parent=None, dataset_version="d", class_book="b", training={})
        )
    workspace.registry.promote("late", "best")
    return workspace.path
