"""The copy of a workspace's models in MLflow: versions, aliases, files; repeatable; failures stop nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipelines.detectors import tracking
from pipelines.detectors.mlflow_registry import mirror, registered_name
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.settings.tracking import TrackingSettings
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.workspace import Workspace

Label = Callable[[LoopContext], None]


@pytest.mark.parametrize(("given", "kind", "url"), [("none", "none", None), ("mlflow", "mlflow", None)])
def test_tracking_is_named_by_its_kind_alone_or_with_a_url(given: str, kind: str, url: str | None) -> None:
    settings = WorkspaceSettings.model_validate({"title": "boards", "tracking": given})
    assert settings.tracking == TrackingSettings.model_validate({"kind": kind, "url": url})
    server = {"url": "http://127.0.0.1:5000"}
    settings = WorkspaceSettings.model_validate({"title": "boards", "tracking": server})
    assert (settings.tracking.kind, settings.tracking.url) == ("mlflow", server["url"])


def test_model_card_has_origin_metrics_and_decisions(context: LoopContext, label: Label) -> None:
    open_round(context)
    label(context)
    row = close_round(context)
    registry = context.workspace.registry
    text = (registry.folder(row.model or "") / "MODEL_CARD.md").read_text()
    card = registry.card(row.model or "")
    assert card.environment.keys() >= {"python", "platform"}
    for part in (card.dataset_version, card.class_book, f"{row.map:.3f}", card.environment["python"]):
        assert part in text
    assert "promote by the promotion gate" in text


def state(workspace: Workspace) -> dict[str, Any]:
    """Versions with their tags, aliases, and number of files."""
    client = tracking.open_client(workspace)
    assert client is not None
    name = registered_name(workspace)
    versions = {str(v.version): v for v in client.search_model_versions(f"name = '{name}'")}
    return {
        "tags": {number: dict(v.tags) for number, v in versions.items()},
        "aliases": dict(client.get_registered_model(name).aliases),
        "files": {
            v.tags["dsmoe.model"]: {file.path for file in client.list_artifacts(v.run_id or "", "model")}
            for v in versions.values()
        },
        "runs": len(client.search_runs([client.get_experiment_by_name("models").experiment_id])),
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_models_are_copied_once_with_aliases_and_files(
    workspace: Workspace, context: LoopContext, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    settings = workspace.settings.model_dump()
    settings["detector"]["kind"] = "ds-moe"
    settings["gate"] = {"checks": [], "approval": True}
    workspace.settings = WorkspaceSettings.model_validate(settings)
    models = []
    for _ in range(2):
        open_round(context)
        label(context)
        models.append(close_round(context).model or "")
    copied = state(workspace)
    by_model = {tags["dsmoe.model"]: number for number, tags in copied["tags"].items()}
    assert by_model.keys() == set(models)
    aliases = {alias: str(number) for alias, number in copied["aliases"].items()}
    assert aliases == {"champion": by_model[models[0]], "candidate": by_model[models[1]]}
    names = ("model.safetensors", "card.json", "MODEL_CARD.md", "evaluation.json", "classes.yaml")
    assert copied["files"][models[0]] >= {f"model/{name}" for name in names}
    dataset = workspace.registry.card(models[0]).dataset_version
    assert f"model/{dataset}.json" in copied["files"][models[0]]
    mirror(workspace)
    assert state(workspace) == copied
    workspace.registry.promote(models[1], "by hand")
    mirror(workspace)
    aliases = {alias: str(number) for alias, number in state(workspace)["aliases"].items()}
    assert aliases == {"champion": by_model[models[1]], "candidate": by_model[models[0]]}

    warnings: list[str] = []
    monkeypatch.setattr(tracking._log, "warning", lambda text, *parts: warnings.append(text % parts))

    def fail(*_: object, **__: object) -> None:
        raise mlflow.exceptions.MlflowException("database is locked\n(while it wrote)")

    monkeypatch.setattr(mlflow.MlflowClient, "search_registered_models", fail)
    mirror(workspace)
    assert len(warnings) == 1
    assert "\n" not in warnings[0]
