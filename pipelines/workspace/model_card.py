"""Model card in Markdown, ``models/ID/MODEL_CARD.md``: origin, metrics, decisions and environment."""

from __future__ import annotations

import json
from pathlib import Path

from dsmoe_core.atomic import atomic_write
from pipelines.workspace.registry import Metrics, ModelCard, Registry

FILE = "MODEL_CARD.md"


def write_model_card(registry: Registry, model: str) -> Path:
    """Write the card of a registered model from what the registry has of it.

    Raises:
        ModelError: there is no such model.
    """
    path = registry.folder(model) / FILE
    lines = _origin(registry.card(model)) + _metrics(registry.evaluation(model)) + _decisions(registry, model)
    lines += _training(registry.card(model))
    atomic_write(path, "\n".join(lines) + "\n")
    return path


def _origin(card: ModelCard) -> list[str]:
    rows = {
        "round": card.round,
        "trained": f"{card.created_at:%Y-%m-%d %H:%M} UTC",
        "started from": card.parent or "initial weights",
        "dataset version": card.dataset_version,
        "class book": card.class_book,
        "code commit": card.commit or "unknown",
        **card.environment,
    }
    return [f"# Model {card.id}", "", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items()), ""]


def _metrics(metrics: Metrics | None) -> list[str]:
    if metrics is None:
        return ["## Metrics", "", "Not evaluated.", ""]
    names = ("map50", "map", "precision", "recall", "f1")
    rows = {"all": metrics, **metrics.per_class}
    table = [
        f"| {label} | " + " | ".join(f"{getattr(row, name):.3f}" for name in names) + " |"
        for label, row in rows.items()
    ]
    head = ["| class | mAP@.5 | mAP@.5:.95 | precision | recall | F1 |", "|---|---:|---:|---:|---:|---:|"]
    return [
        "## Metrics",
        "",
        f"On `{metrics.evaluated_on}` (test set and class book).",
        "",
        *head,
        *table,
        "",
    ]


def _decisions(registry: Registry, model: str) -> list[str]:
    events = [
        f"- {e.at:%Y-%m-%d %H:%M} {e.action} by {e.author or 'the promotion gate'}: {e.reason}"
        for e in registry.events(model)
    ]
    return ["## Decisions", "", *(events or ["None yet."]), ""]


def _training(card: ModelCard) -> list[str]:
    content = json.dumps(card.training, indent=1, sort_keys=True)
    return ["## Training", "", "```json", content, "```"]
