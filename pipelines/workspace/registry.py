"""Model registry of a workspace: a folder, a card and an evaluation per model, and the champion's history."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError

from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import Frozen
from dsmoe_core.errors import ModelError
from dsmoe_core.knockout.part_report import PartReport
from pipelines.workspace.journal import Journal
from pipelines.workspace.model_history import AliasChange, ModelEvent
from pipelines.workspace.operating_points import OperatingPoints

CHAMPION = "champion"
HELD: Literal["held"] = "held"
SHADOW: Literal["shadow"] = "shadow"
"""Values of the journal: candidates that wait for approval, or for a round as shadow."""
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
        environment: versions of Python, torch and dsmoe, and the platform; empty if they are unknown.
    """

    id: str
    round: int
    parent: str | None
    dataset_version: str
    class_book: str
    training: dict[str, Any]
    commit: str | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    created_at: datetime


class Registry:
    """The models of a workspace.

    Files: ``models/ID/{model.safetensors, model.json, card.json, MODEL_CARD.md, evaluation.json,
    evaluation.safetensors, operating_points.json, parts.json}``. The journal has the champion and the
    decisions.
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

    def save_operating_points(self, model: str, points: OperatingPoints) -> None:
        """Write a model's score thresholds for pre-annotations; they replace earlier ones."""
        atomic_write(self.folder(model) / "operating_points.json", points.model_dump_json(indent=1) + "\n")

    def operating_points(self, model: str) -> OperatingPoints | None:
        """A model's score thresholds for pre-annotations; None if it was not evaluated on a test set.

        Raises:
            ModelError: the file is damaged.
        """
        return self._read(model, "operating_points.json", OperatingPoints)

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

    def promote(
        self, model: str, reason: str, *, class_book: str | None = None, author: str | None = None
    ) -> None:
        """Make a registered model champion. A held candidate and a shadow no longer wait for a decision.

        Args:
            class_book: published version, which a rollback to this model publishes again; by default the one
                that it was trained with.
            author: None for the promotion gate.

        Raises:
            ModelError: there is no such model.
        """
        card = self.card(model)
        class_book = class_book or card.class_book
        self._journal.set_alias(CHAMPION, card.id, "promote", reason, author=author, class_book=class_book)
        self._replace_waiting(card.id)

    def _replace_waiting(self, champion: str) -> None:
        """Refuse the held candidate and the shadow, which were compared with another champion."""
        for name in (HELD, SHADOW):
            waiting = self._journal.value(name)
            if waiting is None:
                continue
            self._journal.set_value(name, None)
            if waiting != champion:
                self._journal.record_event(waiting, "refuse", f"{champion} became champion")

    def held(self) -> str | None:
        """The candidate that waits for approval; None if there is none."""
        held = self._journal.value(HELD)
        return None if held is None else str(held)

    def shadow(self) -> str | None:
        """The candidate that predicts with the champion on the images of a round; None if there is none."""
        shadow = self._journal.value(SHADOW)
        return None if shadow is None else str(shadow)

    def wait(self, model: str, state: Literal["held", "shadow"], reason: str) -> None:
        """Make a candidate wait for approval, or for a round as shadow; it replaces an earlier one.

        Raises:
            ModelError: there is no such model.
        """
        waiting, card = self._journal.value(state), self.card(model)
        if waiting is not None and waiting != model:
            self._journal.record_event(waiting, "refuse", f"replaced by {model}")
        self._journal.record_event(card.id, {HELD: "hold", SHADOW: "shadow"}[state], reason)
        self._journal.set_value(state, card.id)

    def end_shadow(self) -> None:
        """The shadow no longer predicts, as it was decided on."""
        self._journal.set_value(SHADOW, None)

    def refuse(self, model: str, reason: str, *, author: str | None = None) -> None:
        """Refuse a candidate; it no longer waits for a decision.

        Raises:
            ModelError: there is no such model, or it is the champion.
        """
        if self.card(model).id == self.champion():
            raise ModelError(
                f"model {model} is the champion",
                "Roll back with `dsmoe models rollback`, or promote another.",
            )
        self._journal.record_event(model, "refuse", reason, author)
        for name in (HELD, SHADOW):
            if self._journal.value(name) == model:
                self._journal.set_value(name, None)

    def events(self, model: str | None = None) -> list[ModelEvent]:
        """Decisions on a model, or on all, oldest first."""
        return self._journal.model_events(model)

    def promoted_with(self, model: str) -> str:
        """The class book that was published when a model was promoted last.

        That is the one it was trained with if the promotion is not in the history of decisions.

        Raises:
            ModelError: there is no such model.
        """
        card = self.card(model)
        books = [event.class_book for event in self.events(model) if event.action == "promote"]
        return next((book for book in reversed(books) if book), card.class_book)

    def previous_champion(self) -> str:
        """The champion before the present one; rollbacks that were made are taken into account.

        Raises:
            ModelError: there is none, or its files are gone.
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
        return self.card(stack[-2]).id

    def rollback(self, reason: str = "rolled back by hand", *, author: str | None = None) -> str:
        """Make the previous champion champion again, and return its id; the class book is not changed.

        Raises:
            ModelError: see ``previous_champion``.
        """
        previous = self.previous_champion()
        class_book = self.promoted_with(previous)
        self._journal.set_alias(CHAMPION, previous, "rollback", reason, author=author, class_book=class_book)
        self._replace_waiting(previous)
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
        environment=environment(),
        created_at=datetime.now(UTC),
    )


def environment() -> dict[str, str]:
    """Versions of Python, torch and dsmoe, and the platform; packages that are not installed are absent."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("torch", "dsmoe"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


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
