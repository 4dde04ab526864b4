"""A training run on disk: fingerprint, checkpoint and result.

The checkpoint holds everything that determines the rest of a run: weights, buffers, their moving average,
the optimizer's state, the step, and the micro-batch. Random numbers are functions of seed and step. So a run
that was killed and resumed ends with the same weights as an uninterrupted one, bit for bit on the same
machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dsmoe_core.checkpoint import (
    CARD,
    CHECKPOINT,
    WEIGHTS,
    load_weights,
    optimizer_tensors,
    read_tensors,
    restore_optimizer,
    save_model,
    write_tensors,
)
from dsmoe_core.config import FINGERPRINT_EXCLUDED, ModelConfig, TrainingConfig
from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import ModelError
from dsmoe_core.schema import LabelledSet, Vocabulary
from dsmoe_core.training.length import LengthState
from dsmoe_core.training.teacher import teacher_hash


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """Result of a finished run.

    Attributes:
        steps: number of steps.
        seconds: time spent on them.
        losses: smoothed losses by name.
        length: what ended the training, and its evaluations; see :class:`LengthState`.
        held_out: keys of the images that were not trained on, because stopping was decided on them.
    """

    steps: int
    seconds: float
    losses: dict[str, float]
    length: dict[str, Any] = field(default_factory=dict)
    held_out: tuple[str, ...] = ()


@dataclass(slots=True)
class RunState:
    """State of a run after some steps.

    Attributes:
        step: steps done.
        seconds: time spent on them.
        micro_batch: images per forward pass: the batch, or fewer if it did not fit into memory.
        losses: smoothed losses by name.
        length: what has been decided about the length of the run.
        held_out: keys of the images that are not trained on.
        trained_on: keys of the images that the model, or its start model, was trained on when the run ends.
    """

    step: int
    seconds: float
    micro_batch: int
    losses: dict[str, float] = field(default_factory=dict)
    length: LengthState = field(default_factory=LengthState)
    held_out: tuple[str, ...] = ()
    trained_on: tuple[str, ...] = ()

    def record_step(self, losses: Mapping[str, Tensor], micro_batch: int, seconds: float) -> None:
        """Count one step and smooth its losses.

        Args:
            losses: losses of the step by name.
            micro_batch: images per forward pass in the step.
            seconds: time since the start of the run.
        """
        self.step, self.micro_batch, self.seconds = self.step + 1, micro_batch, seconds
        values = torch.stack(list(losses.values())).tolist()  # one GPU synchronisation for all losses
        for name, value in zip(losses, values, strict=True):
            self.losses[name] = 0.95 * self.losses.get(name, value) + 0.05 * value

    def summary(self) -> TrainingSummary:
        """Return the summary of a run that ends in this state."""
        return TrainingSummary(self.step, self.seconds, self.losses, self.length.to_dict(), self.held_out)


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Folder of one training run.

    Attributes:
        out: the folder.
        fingerprint: hash of everything that determines the result.
    """

    out: Path
    fingerprint: str

    def finished(self) -> TrainingSummary | None:
        """Return the summary if the folder holds the model of this run; a checkpoint is then deleted."""
        try:
            card = json.loads((self.out / CARD).read_text("utf-8"))
            if card["fingerprint"] != self.fingerprint or not (self.out / WEIGHTS).is_file():
                return None
            length, held_out = card["length"], tuple(card["held_out"])
            summary = TrainingSummary(card["steps"], card["seconds"], card["losses"], length, held_out)
        except (OSError, ValueError, KeyError):
            return None
        (self.out / CHECKPOINT).unlink(missing_ok=True)  # left by a kill right after the model was written
        return summary

    def save(
        self, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, state: RunState
    ) -> None:
        """Write the checkpoint atomically."""
        tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
        tensors |= optimizer_tensors(optimizer)
        metadata = {
            "fingerprint": self.fingerprint,
            "step": str(state.step),
            "seconds": str(state.seconds),
            "micro_batch": str(state.micro_batch),
            "losses": json.dumps(state.losses),
            "length": json.dumps(state.length.to_dict()),
        }
        write_tensors(self.out / CHECKPOINT, tensors, metadata)

    def finish(
        self,
        average: nn.Module,
        model: ModelConfig,
        vocabulary: Vocabulary,
        state: RunState,
        card: Mapping[str, Any],
    ) -> None:
        """Write the model, then remove the checkpoint.

        Args:
            average: network with the averaged weights.
            model, vocabulary: stored with the weights.
            state: final state.
            card: further entries of the model card.
        """
        entries = {"fingerprint": self.fingerprint, **asdict(state.summary()), "trained_on": state.trained_on}
        save_model(self.out, average, model, vocabulary, {**entries, **card})
        (self.out / CHECKPOINT).unlink(missing_ok=True)

    def restore(
        self, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, micro_batch: int
    ) -> RunState:
        """Load the checkpoint of this run; without a valid one, return the state before the first step.

        A damaged checkpoint, or one of another run, is ignored.

        Args:
            network, average, optimizer: their state is loaded.
            micro_batch: upper limit of the micro-batch.
        """
        checkpoint = self._read_checkpoint()
        if checkpoint is None:
            return RunState(0, 0.0, micro_batch)
        tensors, metadata = checkpoint
        for prefix, module in (("network.", network), ("average.", average)):
            weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            load_weights(module, weights, str(self.out / CHECKPOINT))
        restore_optimizer(optimizer, tensors)
        return RunState(
            int(metadata["step"]),
            float(metadata["seconds"]),
            min(micro_batch, int(metadata["micro_batch"])),
            json.loads(metadata["losses"]),
            LengthState.from_dict(json.loads(metadata["length"])),
        )

    def _read_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        if not (self.out / CHECKPOINT).is_file():
            return None
        try:
            tensors, metadata = read_tensors(self.out / CHECKPOINT)
        except ModelError:
            return None
        matches = metadata.get("fingerprint") == self.fingerprint and "length" in metadata
        return (tensors, metadata) if matches else None


def fingerprint(
    sets: Sequence[LabelledSet],
    model: ModelConfig,
    training: TrainingConfig,
    start: Path | None,
    encoder: str,
    teacher: Path | None = None,
) -> str:
    """Hash everything that determines the result of a run.

    Settings such as the micro-batch are excluded (``FINGERPRINT_EXCLUDED``), so that changing them after
    memory ran out does not discard the steps done so far.

    Args:
        sets: training data; its order and that of the images count, because the batches depend on them.
        model, training: configuration.
        start: file of the initial weights.
        encoder: name of the text encoder.
        teacher: folder of the model to learn from.

    Raises:
        ModelError: the teacher's folder does not hold a complete model.
    """
    data = [
        (
            [(i.image.key, [(*a.box.corners, a.label) for a in i.annotations]) for i in images],
            [(c.name, c.description, c.parent, c.paraphrases) for c in (*book.classes, *book.inner)],
        )
        for images, book in sets
    ]
    start_hash = sha256_of(start) if start is not None and start.is_file() else None
    settings = training.model_dump(mode="json", exclude=FINGERPRINT_EXCLUDED)
    parts = [data, model.model_dump(mode="json"), settings, start_hash, encoder]
    parts += [teacher_hash(teacher)] if teacher is not None else []
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
