"""The detector of a simulation: its image encoder is frozen, and its features are computed once."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from lightning.fabric import Fabric
from torch import Tensor

from dsmoe_core.data.letterbox_cache import CacheConfig
from dsmoe_core.predict import Detector
from dsmoe_core.runtimes.graph import graph_outputs
from dsmoe_core.runtimes.loading import RuntimeOptions, load_inference_model
from dsmoe_core.runtimes.protocol import RuntimeOutput, runtime_output
from dsmoe_core.schema import ImageRecord, LabelledImage, Prediction, Vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder
from dsmoe_core.train import fit
from dsmoe_core.training.frozen_encoder import FrozenEncoder
from dsmoe_core.training.precision import training_precision
from pipelines.benchmarks.simulation.plan import Plan
from pipelines.detectors.backend import EVALUATION_MIN_SCORE

CACHE_BYTES = 24 << 30
"""Size limit of the features on disk; about 1 MB per image and variant at 256 px."""


class CachedRuntime:
    """PyTorch, with the maps of the frozen backbone from the cache of the training.

    Args:
        network: in evaluation mode.
        precision: of the training; with the same one, training and prediction share the maps.
        cache: of the training.
    """

    def __init__(self, network: torch.nn.Module, precision: str, cache: CacheConfig) -> None:
        self.name = "frozen encoder"
        self.precision: Literal["fp32", "bf16"] = "bf16" if precision == "bf16-mixed" else "fp32"
        self._fabric = Fabric(accelerator="auto", devices=1, precision=precision)
        self._network = self._fabric.to_device(network).to(memory_format=torch.channels_last)
        self._encoder = FrozenEncoder(self._fabric, self._network, precision, cache)

    @torch.no_grad()
    def run(
        self,
        images: UInt8[Tensor, "b side side 3"],
        conditioning: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
    ) -> RuntimeOutput:
        """Run a batch; see ``dsmoe_core.runtimes.protocol.Runtime``."""
        device = self._fabric.device
        maps = self._encoder.maps(images.numpy())
        square = images.new_zeros((len(images), 3, *images.shape[1:3]), dtype=torch.float32).to(device)
        with self._fabric.autocast():
            output = self._network(square, conditioning.to(device), classes.to(device), maps)
        return runtime_output(graph_outputs(output))


class Learner:
    """Trains and predicts as the product does, from a warm start.

    Args:
        plan: model, training and initial weights.
        text_encoder: embeds the class descriptions.
    """

    def __init__(self, plan: Plan, text_encoder: TextEncoder) -> None:
        self._plan = plan
        self._text_encoder = text_encoder
        self._model = plan.model.model_copy(update={"text_width": text_encoder.width})
        self._cache = CacheConfig(plan.work / "cache", CACHE_BYTES)
        for logger in ("lightning.fabric", "lightning.pytorch", "dsmoe_core.training.frozen_encoder"):
            logging.getLogger(logger).setLevel(logging.WARNING)

    def train(
        self,
        images: Sequence[LabelledImage],
        vocabulary: Vocabulary,
        out: Path,
        *,
        seed: int,
        start_from: Path | None,
        cycles: int = 1,
    ) -> float:
        """Train a model on these images; returns the seconds of the training.

        Args:
            start_from: folder of the model to continue from; None: the warm start.
            cycles: length of the training in cycles.

        Raises:
            ModelError: the training diverged.
        """
        training = self._plan.training.model_copy(
            update={"seed": seed, "images_seen": cycles * self._plan.training.images_seen}
        )
        summary = fit(
            images=images,
            vocabulary=vocabulary,
            text_encoder=self._text_encoder,
            model=self._model,
            training=training,
            out=out,
            start_from=start_from,
            encoder_from=self._plan.weights,
            cache=self._cache,
        )
        return summary.seconds

    def predict(
        self, folder: Path, vocabulary: Vocabulary, images: Sequence[ImageRecord]
    ) -> Iterator[Prediction]:
        """Predictions with detections of low scores too, in the order of the images."""
        precision = training_precision(self._plan.training)
        loaded = load_inference_model(folder, RuntimeOptions(precision="fp32"))
        network = loaded.class_encoder.eval()
        model = loaded._replace(runtime=CachedRuntime(network, precision, self._cache))
        detector = Detector(model, self._text_encoder, self._cache)
        detector.set_vocabulary(vocabulary)
        yield from detector.predict(images, min_score=EVALUATION_MIN_SCORE)


def remove_model(folder: Path) -> None:
    """Remove a model that is not needed any more."""
    shutil.rmtree(folder, ignore_errors=True)
