"""A run on disk: what it is of, how far it came, how it ended.

All that decides the rest of a run is in its checkpoint: weights, statistics, their average, the optimizer's
moments, the step, and how many images went at once. Random numbers are functions of seed and step. So a run
that was killed anywhere ends with the weights of one that was not, bit for bit on the same machine.
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


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """How a run ended."""

    steps: int
    seconds: float
    losses: dict[str, float]


@dataclass(slots=True)
class RunState:
    """How far a run came.

    Attributes:
        step: steps done.
        seconds: spent on them.
        micro_batch: images that go through the network at once; the batch, or fewer where it did not fit.
        losses: smoothed, by name.
    """

    step: int
    seconds: float
    micro_batch: int
    losses: dict[str, float] = field(default_factory=dict)

    def advance(self, losses: Mapping[str, Tensor], micro_batch: int, seconds: float) -> None:
        """One step further."""
        self.step, self.micro_batch, self.seconds = self.step + 1, micro_batch, seconds
        for name, loss in losses.items():
            value = float(loss)
            self.losses[name] = 0.95 * self.losses.get(name, value) + 0.05 * value

    def summary(self) -> TrainingSummary:
        """Of a run that has reached its end."""
        return TrainingSummary(self.step, self.seconds, self.losses)


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One training run.

    Attributes:
        out: its folder.
        fingerprint: of everything that decides what comes out of it.
    """

    out: Path
    fingerprint: str

    def finished(self) -> TrainingSummary | None:
        """How it ended, where it did."""
        try:
            card = json.loads((self.out / CARD).read_text("utf-8"))
            if card["fingerprint"] != self.fingerprint or not (self.out / WEIGHTS).is_file():
                return None
            return TrainingSummary(card["steps"], card["seconds"], card["losses"])
        except (OSError, ValueError, KeyError):
            return None

    def save(
        self, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, reached: RunState
    ) -> None:
        """Write the checkpoint, whole or not at all."""
        tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
        tensors |= optimizer_tensors(optimizer)
        metadata = {
            "fingerprint": self.fingerprint,
            "step": str(reached.step),
            "seconds": str(reached.seconds),
            "micro_batch": str(reached.micro_batch),
            "losses": json.dumps(reached.losses),
        }
        write_tensors(self.out / CHECKPOINT, tensors, metadata)

    def finish(
        self,
        average: nn.Module,
        model: ModelConfig,
        vocabulary: Vocabulary,
        reached: RunState,
        card: Mapping[str, Any],
    ) -> None:
        """Write the model; the checkpoint goes when it is whole."""
        own = {"fingerprint": self.fingerprint, **asdict(reached.summary())}
        save_model(self.out, average, model, vocabulary, {**own, **card})
        (self.out / CHECKPOINT).unlink(missing_ok=True)

    def restore(
        self, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, micro_batch: int
    ) -> RunState:
        """Go on where a killed run stopped; a torn or foreign checkpoint is none."""
        begun = self._read()
        if begun is None:
            return RunState(0, 0.0, micro_batch)
        tensors, metadata = begun
        for prefix, module in (("network.", network), ("average.", average)):
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            load_weights(module, own, str(self.out / CHECKPOINT))
        restore_optimizer(optimizer, tensors)
        return RunState(
            int(metadata["step"]),
            float(metadata["seconds"]),
            min(micro_batch, int(metadata["micro_batch"])),
            json.loads(metadata["losses"]),
        )

    def _read(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        if not (self.out / CHECKPOINT).is_file():
            return None
        try:
            tensors, metadata = read_tensors(self.out / CHECKPOINT)
        except ModelError:
            return None
        fits = metadata.get("fingerprint") == self.fingerprint and "micro_batch" in metadata
        return (tensors, metadata) if fits else None


def fingerprint(
    sets: Sequence[LabelledSet],
    model: ModelConfig,
    training: TrainingConfig,
    start: Path | None,
    encoder: str,
) -> str:
    """Hash of everything that decides what comes out of a run.

    Not of how it runs: what somebody changes because memory ran out must not cost the steps done so far.

    Args:
        sets: in their order, and that of their images, which are those of the batches.
        start: file of the first weights.
        encoder: name of the text encoder.
    """
    learned = [
        (
            [(p.image.key, [(*a.box.corners, a.label) for a in p.annotations]) for p in images],
            [(c.name, c.description, c.parent, c.paraphrases) for c in (*book.classes, *book.inner)],
        )
        for images, book in sets
    ]
    begun = sha256_of(start) if start is not None and start.is_file() else None
    settings = training.model_dump(mode="json", exclude=FINGERPRINT_EXCLUDED)
    parts = [learned, model.model_dump(mode="json"), settings, begun, encoder]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
