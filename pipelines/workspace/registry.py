"""Model registry of a workspace: a folder, a card and an evaluation per model, and the champion's history."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import ValidationError

from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import Frozen
from dsmoe_core.errors import ModelError
from dsmoe_core.knockout.part_report import PartReport
from pipelines.workspace.journal import AliasChange, Journal

CHAMPION = "champion"
Content = TypeVar("Content", bound=Frozen)


class ClassMetrics(Frozen):
    """COCO metrics of one class, 0 to 1."""

    map50: float
    map: float
    precision: float
    recall: float
    f1: float


class Metrics(ClassMetrics):
    """COCO metrics over all classes, 0 to 1, and those of each class.

    Attributes:
        evaluated_on: test set and class book, ``DATASET+BOOK``; only metrics on the same ones are comparable.
    """

    per_class: dict[str, ClassMetrics]
    evaluated_on: str

    @classmethod
    def of(cls, evaluation: Any, evaluated_on: str) -> Self:
        """The metrics of a ``dsmoe_core.evaluation.coco_metrics.Evaluation``."""
        names = ("map50", "map", "precision", "recall", "f1")
        per_class = {
            label: ClassMetrics(**{name: float(getattr(metrics, name)) for name in names})
            for label, metrics in evaluation.per_class.items()
        }
        totals = {name: float(getattr(evaluation, name)) for name in names}
        return cls(**totals, per_class=per_class, evaluated_on=evaluated_on)


class ModelCard(Frozen):
    """Provenance of a model; written once, after its other files, so a folder with a card is complete.

    Attributes:
        parent: the model that its training started from.
        training: configuration and summary (steps, seconds, losses) of the training.
        commit: git commit of this software; None if it is unknown.
    """

    id: str
    round: int
    parent: str | None
    dataset_version: str
    class_book: str
    training: dict[str, Any]
    commit: str | None = None
    created_at: datetime


class Registry:
    """The models of a workspace.

    Files: ``models/ID/{model.safetensors, model.json, card.json, evaluation.json, parts.json}``. The journal
    has the champion.
    """

    def __init__(self, folder: Path, journal: Journal) -> None:
        self._folder = folder
        self._journal = journal

    def folder(self, model: str) -> Path:
        """The folder of a model's files."""
        return self._folder / model

    def register(self, card: ModelCard) -> None:
        """Write a model's card."""
        atomic_write(self.folder(card.id) / "card.json", card.model_dump_json(indent=1) + "\n")

    def has(self, model: str) -> bool:
        """Whether a model of this id is registered."""
        return (self.folder(model) / "card.json").exists()

    def card(self, model: str) -> ModelCard:
        """A model's card.

        Raises:
            ModelError: there is no such model, or its card is damaged.
        """
        path = self.folder(model) / "card.json"
        try:
            return ModelCard.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            ids = ", ".join(card.id for card in self.cards()) or "none yet"
            raise ModelError(
                f"model {model!r} is not in {self._folder}; there are: {ids}", "Name one of these."
            ) from error
        except (ValueError, ValidationError) as error:
            raise ModelError(f"{path} is not a model card", "Restore it from a copy.") from error

    def cards(self) -> list[ModelCard]:
        """The cards of all models, oldest first."""
        cards = [self.card(path.parent.name) for path in self._folder.glob("*/card.json")]
        return sorted(cards, key=lambda card: (card.created_at, card.id))

    def save_evaluation(self, model: str, metrics: Metrics) -> None:
        """Write a model's metrics on the test set; they replace earlier ones."""
        atomic_write(self.folder(model) / "evaluation.json", metrics.model_dump_json(indent=1) + "\n")

    def evaluation(self, model: str) -> Metrics | None:
        """A model's latest metrics on the test set; None if it was not evaluated yet.

        Raises:
            ModelError: the file is damaged.
        """
        return self._read(model, "evaluation.json", Metrics)

    def save_parts(self, model: str, report: PartReport) -> None:
        """Write which parts of a model are in use."""
        atomic_write(self.folder(model) / "parts.json", report.model_dump_json(indent=1) + "\n")

    def parts(self, model: str) -> PartReport | None:
        """Which parts of a model are in use; None if it was not measured.

        Raises:
            ModelError: the file is damaged.
        """
        return self._read(model, "parts.json", PartReport)

    def _read(self, model: str, name: str, kind: type[Content]) -> Content | None:
        path = self.folder(model) / name
        try:
            return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, ValidationError) as error:
            raise ModelError(
                f"{path} is damaged ({type(error).__name__})", "Delete it; the next round measures it again."
            ) from error

    def champion(self) -> str | None:
        """The model in use; None before the first promotion."""
        history = self.history()
        return history[-1].model if history else None

    def history(self) -> list[AliasChange]:
        """All promotions and rollbacks, oldest first."""
        return self._journal.alias_history(CHAMPION)

    def promote(self, model: str, reason: str) -> None:
        """Make a registered model champion.

        Raises:
            ModelError: there is no such model.
        """
        self._journal.set_alias(CHAMPION, self.card(model).id, "promote", reason)

    def rollback(self, reason: str = "rolled back by hand") -> str:
        """Make the previous champion champion again, and return its id.

        Raises:
            ModelError: there is no previous champion, or its files are gone.
        """
        stack: list[str] = []
        for change in self.history():
            if change.action == "rollback":
                stack.pop()
            else:
                stack.append(change.model)
        if len(stack) < 2:
            raise ModelError(
                f"there is no champion before {stack[-1] if stack else 'the first'}", "Promote another model."
            )
        previous = self.card(stack[-2]).id
        self._journal.set_alias(CHAMPION, previous, "rollback", reason)
        return previous


def new_card(
    model: str,
    *,
    number: int,
    parent: str | None,
    dataset_version: str,
    class_book: str,
    training: Mapping[str, Any],
) -> ModelCard:
    """The card of a model that was just trained in round ``number``."""
    return ModelCard(
        id=model,
        round=number,
        parent=parent,
        dataset_version=dataset_version,
        class_book=class_book,
        training=dict(training),
        commit=source_commit(),
        created_at=datetime.now(UTC),
    )


def source_commit() -> str | None:
    """The git commit of this software, with "+changes" if files differ; None if it is unknown.

    Changed result files are ignored, so that a benchmark does not alter the commit that the next one records.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changes = git("status", "--porcelain", "-uno", "--", ".", ":(exclude)benchmarks/results")
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def as_plain_dict(summary: Any) -> dict[str, Any]:
    """A training summary (named tuple or dataclass) as plain values for a card."""
    if is_dataclass(summary) and not isinstance(summary, type):
        return asdict(summary)
    return dict(summary._asdict()) if hasattr(summary, "_asdict") else dict(vars(summary))
