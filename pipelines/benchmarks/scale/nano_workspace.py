"""A workspace with the smaller network, and a model that was trained in it for a minute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.formats import read_annotations
from pipelines.benchmarks.scale.block_images import COLOURS, write_block_images
from pipelines.progress import ProgressReporter
from pipelines.settings.detector import DetectorSettings
from pipelines.settings.environment import Environment
from pipelines.settings.studio import StudioSettings
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.training.standalone_training import TrainingFiles, train_from_files
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.workspace import Workspace

BATCH = 8
"""Images of a training step, and of a forward pass in predictions."""
LABELLED = 64
"""Images of the training."""


@dataclass(frozen=True, slots=True)
class NanoWorkspace:
    """Folders of synthetic data and of a workspace whose detector is the smaller network.

    Attributes:
        workspace: folder of the workspace; its trainings are in fp32 and start from random weights.
        data: folder with images/, train.json and val.json; the pool is the images of train.json.
    """

    workspace: Path
    data: Path

    @classmethod
    def make(cls, folder: Path, px: int, seed: int) -> NanoWorkspace:
        """Make both below ``folder``; images and network have ``px`` pixels a side."""
        made = cls(folder / "workspace", folder / "labelled")
        write_block_images(made.data, LABELLED, 1, px, seed)
        model = ModelConfig.model_validate(ModelConfig.of_size("nano").model_dump() | {"image_px": px})
        training = TrainingConfig(batch=BATCH, precision="32-true", seed=seed)
        settings = WorkspaceSettings(
            title="Scale benchmark",
            studio=StudioSettings(kind="stub"),
            detector=DetectorSettings(model=model, training=training),
        )
        source = Source(made.data / "images", classes=list(COLOURS))
        make_workspace(made.workspace, source, settings)[0].close()
        return made

    def train(
        self, out: Path, images_seen: int, environment: Environment, progress: ProgressReporter
    ) -> None:
        """Train a model in this process and write it to ``out``."""
        annotations = read_annotations(self.data / "train.json", self.data / "images")
        files = TrainingFiles(annotations, self.data / "images", out, changes=(("images_seen", images_seen),))
        with Workspace.open(self.workspace) as opened:
            train_from_files(files, opened, environment, progress)
