"""A workspace that was made before decisions on models were recorded opens as it is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import yaml

from pipelines.workspace.champion import rollback_champion
from pipelines.workspace.registry import new_card
from pipelines.workspace.workspace import Workspace


def test_champion_and_settings_of_an_earlier_workspace_stay(workspace: Workspace) -> None:
    registry, book = workspace.registry, workspace.class_book().version
    for name in ("a", "b"):
        card = new_card(name, number=0, parent=None, dataset_version="d", class_book=book, training={})
        registry.register(card.model_copy(update={"created_at": datetime(2026, 11, 28, tzinfo=UTC)}))
        file = registry.folder(name) / "card.json"
        file.write_text(card.model_dump_json(exclude={"environment"}))
        registry.promote(name, "better")
    path = workspace.path
    workspace.close()
    with closing(sqlite3.connect(path / "journal.sqlite")) as db:
        db.execute("DROP TABLE model_events")
        db.commit()
    _with_earlier_settings(path)
    with Workspace.open(path) as opened:
        assert opened.champion() == "b"
        assert opened.settings.gate.checks == ("min_gain",)
        assert opened.settings.tracking.kind == "mlflow"
        assert [change.model for change in opened.registry.history()] == ["a", "b"]
        assert (opened.registry.held(), opened.registry.events()) == (None, [])
        assert opened.registry.card("b").environment == {}
        assert rollback_champion(opened, "worse") == ("a", book, None, False, False)


def _with_earlier_settings(path: Path) -> None:
    """The fields that dsmoe.yaml had before."""
    settings = yaml.safe_load((path / "dsmoe.yaml").read_text())
    settings |= {"gate": {"checks": ["min_gain"], "min_gain": 0.0}, "tracking": "mlflow"}
    (path / "dsmoe.yaml").write_text(yaml.safe_dump(settings))
