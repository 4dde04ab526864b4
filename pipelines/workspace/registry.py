"""The models of a workspace: a folder and a card each, and the champion with its history.

Small on purpose; an MLflow registry takes this place behind the same five verbs.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import Frozen
from dsmoe_core.errors import ModelError
from pipelines.workspace.journal import AliasChange, Journal

CHAMPION = "champion"


class ClassMetrics(Frozen):
    """COCO scores of one class, 0 to 1."""

    map50: float
    map: float
    precision: float
    recall: float
    f1: float


class Metrics(ClassMetrics):
    """COCO scores over all classes, 0 to 1, and those of each class.

    Attributes:
        evaluated_on: test set and class book, ``DATASET+BOOK``; only metrics on the same ones are comparable.
    """

    per_class: dict[str, ClassMetrics]
    evaluated_on: str

    @classmethod
    def of(cls, evaluation: Any, evaluated_on: str) -> Self:
        """Take over an evaluation's figures (``dsmoe_core.evaluation.coco_metrics.Evaluation``)."""
        names = ("map50", "map", "precision", "recall", "f1")
        per_class = {
            label: ClassMetrics(**{n: float(getattr(scores, n)) for n in names})
            for label, scores in evaluation.per_class.items()
        }
        totals = {n: float(getattr(evaluation, n)) for n in names}
        return cls(**totals, per_class=per_class, evaluated_on=evaluated_on)


class ModelCard(Frozen):
    """Where a model comes from and how good it is; written last, so a folder with a card is whole.

    Attributes:
        parent: the model its training started from.
        training: configuration and summary (steps, seconds, losses) of the training.
        evaluation: None until it was judged.
        commit: of this software, where it is known.
    """

    id: str
    round: int
    parent: str | None
    dataset_version: str
    class_book: str
    training: dict[str, Any]
    evaluation: Metrics | None = None
    commit: str | None = None
    created_at: datetime


class Registry:
    """models/ID/{model.safetensors, model.json, card.json}; which is champion stands in the journal."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self._folder = folder
        self._journal = journal

    def folder(self, model: str) -> Path:
        """Where a model's files are."""
        return self._folder / model

    def register(self, card: ModelCard) -> None:
        """Write or rewrite a model's card."""
        atomic_write(self.folder(card.id) / "card.json", card.model_dump_json(indent=1) + "\n")

    def has(self, model: str) -> bool:
        return (self.folder(model) / "card.json").exists()

    def card(self, model: str) -> ModelCard:
        """A model's card.

        Raises:
            ModelError: there is no such model, or its card is torn.
        """
        path = self.folder(model) / "card.json"
        try:
            return ModelCard.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            known = ", ".join(c.id for c in self.cards()) or "none yet"
            raise ModelError(
                f"model {model!r} is not in {self._folder}; there are: {known}", "Name one of these."
            ) from error
        except (ValueError, ValidationError) as error:
            raise ModelError(f"{path} is no model card", "Restore it from a copy.") from error

    def cards(self) -> list[ModelCard]:
        """All models, oldest first."""
        found = [self.card(path.parent.name) for path in self._folder.glob("*/card.json")]
        return sorted(found, key=lambda card: (card.created_at, card.id))

    def champion(self) -> str | None:
        """The model in use; None before the first promotion."""
        history = self.history()
        return history[-1].model if history else None

    def history(self) -> list[AliasChange]:
        """Every model that was champion, oldest first."""
        return self._journal.alias_history(CHAMPION)

    def promote(self, model: str, reason: str) -> None:
        """Make a registered model champion.

        Raises:
            ModelError: there is no such model.
        """
        self._journal.set_alias(CHAMPION, self.card(model).id, "promote", reason)

    def rollback(self, reason: str = "rolled back by hand") -> str:
        """Make the champion before the present one champion again, and return its id.

        Raises:
            ModelError: there was none before, or it is not there any more.
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
        before = self.card(stack[-2]).id
        self._journal.set_alias(CHAMPION, before, "rollback", reason)
        return before


def new_card(
    model: str,
    *,
    number: int,
    parent: str | None,
    dataset_version: str,
    class_book: str,
    training: Mapping[str, Any],
) -> ModelCard:
    """A card for a model that was just trained."""
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
    """The git commit of this software, with "+changes" where files differ; None where it is not known.

    Result files may differ: a benchmark that has written one does not change what the next one measures.
    """
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=True)  # noqa: S607
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "-uno", "--", ".", ":(exclude)benchmarks/results")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def plain(summary: Any) -> dict[str, Any]:
    """A training summary (named tuple or dataclass) as plain values for a card."""
    if is_dataclass(summary) and not isinstance(summary, type):
        return asdict(summary)
    return dict(summary._asdict()) if hasattr(summary, "_asdict") else dict(vars(summary))
