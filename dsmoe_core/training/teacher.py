"""The teacher of a knowledge distillation: a trained network that predicts the images of a training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from lightning.fabric import Fabric
from torch import Tensor

from dsmoe_core.assign import FlatPredictions, flatten_levels
from dsmoe_core.checkpoint import WEIGHTS, check_text_encoder, load_model, read_card
from dsmoe_core.config import LossWeights, ModelConfig
from dsmoe_core.digest import canonical_json, sha256_of
from dsmoe_core.errors import ModelError
from dsmoe_core.knowledge_distillation import distillation_losses
from dsmoe_core.losses import BatchCounts
from dsmoe_core.network import NetworkOutput
from dsmoe_core.runtimes.protocol import to_network_input
from dsmoe_core.schema import LabelledSet, Vocabulary
from dsmoe_core.text_embeddings import embed_vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder

SHARED_FIELDS = ("image_px", "head_strides", "preprocessing")
"""Fields of ``ModelConfig`` that are the same in student and teacher: both get the same pixels, and predict
for the same cells."""


class Teacher:
    """A trained network in evaluation mode, without gradients.

    It reads the class descriptions of its own training. A student may have other classes: those that both
    have, by name, are distilled.

    Args:
        network: stages 3 to 10 and the head, on the device of ``fabric``.
        conditioning: T^ of the classes that the network was trained on, which it also scores.
        columns: for each labelled set of the student, the teacher's number of each of the set's classes; -1
            for a class that the teacher does not have.
        fabric: gives device and autocast.
    """

    def __init__(
        self,
        network: Any,
        conditioning: Float[Tensor, "t d"],
        columns: Sequence[Int[Tensor, " _"]],
        fabric: Fabric,
    ) -> None:
        self._network = network
        self._conditioning = conditioning
        self._columns = columns
        self._fabric = fabric

    @classmethod
    def load(
        cls, folder: Path, sets: Sequence[LabelledSet], text_encoder: TextEncoder, fabric: Fabric
    ) -> Teacher:
        """Load the model of a folder, and encode its classes.

        Args:
            sets: the student's labelled sets.
            text_encoder: the one of the teacher's training.

        Raises:
            ModelError: the folder does not hold a complete model, or it has another text encoder.
        """
        check_text_encoder(folder, text_encoder)
        model = load_model(folder)
        network = fabric.to_device(model.network).to(memory_format=torch.channels_last)
        network.eval().requires_grad_(False)
        texts = embed_vocabulary(model.vocabulary, text_encoder)
        with torch.no_grad():
            encoding = network.encode_classes(texts.classes.to(fabric.device), texts.inner.to(fabric.device))
        columns = [shared_columns(vocabulary, model.vocabulary) for _, vocabulary in sets]
        return cls(network, encoding.conditioning, columns, fabric)

    @torch.no_grad()
    def predict(self, pixels: UInt8[Tensor, "b side side 3"]) -> FlatPredictions:
        """Predictions of all its classes, in the order of its vocabulary, in float32."""
        images = to_network_input(pixels.to(self._fabric.device))
        with self._fabric.autocast():
            output = self._network(
                images.contiguous(memory_format=torch.channels_last), self._conditioning, self._conditioning
            )
        return flatten_levels(
            [
                level._replace(logits=level.logits.float(), distances=level.distances.float())
                for level in output.levels
            ]
        )

    def losses(
        self,
        output: NetworkOutput,
        pixels: UInt8[Tensor, "b side side 3"],
        set_index: int,
        active: Int[Tensor, " a"],
        counts: BatchCounts,
        weights: LossWeights,
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the weighted losses of the student towards this teacher.

        Args:
            output: of the student, for these pixels.
            set_index: number of the labelled set that the images are of.
            active: rows of the set's classes that the student scores.
            counts: counts over the whole batch.
        """
        columns = self._columns[set_index][active.cpu()]
        shared = (columns >= 0).nonzero()[:, 0]
        device = self._fabric.device
        student, teacher = flatten_levels(output.levels), self.predict(pixels)
        return distillation_losses(
            student._replace(logits=student.logits[..., shared.to(device)]),
            teacher._replace(logits=teacher.logits[..., columns[shared].to(device)]),
            counts,
            weights,
        )


def shared_columns(student: Vocabulary, teacher: Vocabulary) -> Int[Tensor, " c"]:
    """The teacher's number of each of the student's classes, by name; -1 where it has none."""
    number = {name: i for i, name in enumerate(teacher.names)}
    return torch.tensor([number.get(name, -1) for name in student.names], dtype=torch.long)


def check_teacher(folder: Path, model: ModelConfig, sets: Sequence[LabelledSet]) -> None:
    """Check that a student can learn from the model of a folder; reads its card only.

    Args:
        model: of the student.
        sets: the student's labelled sets.

    Raises:
        ModelError: the folder does not hold a complete model, the model gets other pixels or has other cells,
            or it has none of the student's classes.
    """
    card = read_card(folder)
    differences = [
        f"{name} {getattr(card.config, name)} (expected {getattr(model, name)})"
        for name in SHARED_FIELDS
        if getattr(card.config, name) != getattr(model, name)
    ]
    if differences:
        raise ModelError(
            f"the teacher {folder} does not fit the model to train: it has {', '.join(differences)}",
            "Use a teacher with these values, or change them in detector.model.",
        )
    own = [name for _, vocabulary in sets for name in vocabulary.names]
    if not set(own) & set(card.vocabulary.names):
        raise ModelError(
            f"the teacher {folder} has none of the classes to train ({', '.join(own)}); it has "
            f"{', '.join(card.vocabulary.names)}",
            "Use a teacher that was trained on at least one of these classes.",
        )


def teacher_hash(folder: Path) -> str:
    """SHA-256 of all that determines the predictions of a model: weights, configuration and classes.

    Raises:
        ModelError: the folder does not hold a complete model.
    """
    card = read_card(folder)
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} has no {WEIGHTS}", "Use another teacher, or train it again.")
    content = [sha256_of(folder / WEIGHTS), card.config.model_dump(mode="json"), card.vocabulary.to_dict()]
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
