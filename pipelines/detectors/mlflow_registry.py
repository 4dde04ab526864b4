"""Copy of the models of a workspace in MLflow's model registry.

The journal and the model folders are the source of truth. Each model becomes a version of one registered
model, with its files, tags and metrics; the aliases ``champion`` and ``candidate`` point to versions. Copying
again changes nothing that is up to date. Models are copied when a round is closed and when a person decides
on a model; a failure of MLflow is logged in one line and stops nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.detectors.tracking import artifact_location, experiment_id, is_tracked, open_client, warn
from pipelines.workspace.model_card import write_model_card
from pipelines.workspace.registry import CHAMPION, ModelCard
from pipelines.workspace.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "models"
CANDIDATE = "candidate"
MODEL_TAG = "dsmoe.model"
ARTIFACTS = "model"


def registered_name(workspace: Workspace) -> str:
    """Name of the workspace's registered model."""
    return f"dsmoe-{workspace.unique_id()}"


def mirror(workspace: Workspace) -> None:
    """Write the model cards, and copy all models to MLflow if the workspace is tracked."""
    try:
        for card in workspace.registry.cards():
            write_model_card(workspace.registry, card.id)
        if not is_tracked(workspace):
            return
        client = open_client(workspace)
        if client is not None:
            _copy_models(client, workspace)
    except Exception as error:  # noqa: BLE001  # no failure of MLflow may stop a round
        warn(error, "the models are not copied to its registry")


def _copy_models(client: MlflowClient, workspace: Workspace) -> None:
    name, registry = registered_name(workspace), workspace.registry
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, {"dsmoe.title": workspace.settings.title})
    known = {
        version.tags.get(MODEL_TAG): str(version.version)
        for version in client.search_model_versions(f"name = '{name}'")
    }
    for card in registry.cards():
        if card.id not in known:
            known[card.id] = _add_version(client, workspace, name, card)
        _update(client, workspace, name, card, known[card.id])
    champion = registry.champion()
    others = [card.id for card in registry.cards() if card.id != champion]
    candidate = registry.held() or registry.shadow() or (others[-1] if others else None)
    wanted = {CHAMPION: champion, CANDIDATE: candidate}
    aliases = dict(client.get_registered_model(name).aliases)
    for alias, model in wanted.items():
        if model is None:
            if alias in aliases:
                client.delete_registered_model_alias(name, alias)
        elif str(aliases.get(alias)) != known[model]:
            client.set_registered_model_alias(name, alias, known[model])


def _add_version(client: MlflowClient, workspace: Workspace, name: str, card: ModelCard) -> str:
    """Log the files of a model in a run of their own, and register them; returns the number of the version.

    The run is found again if a copy was interrupted before its version was made.
    """
    experiment = experiment_id(client, artifact_location(workspace), EXPERIMENT)
    found = client.search_runs([experiment], f"tags.`{MODEL_TAG}` = '{workspace.unique_id()}/{card.id}'")
    if found:
        run = found[0]
    else:
        tags = {MODEL_TAG: f"{workspace.unique_id()}/{card.id}"}
        run = client.create_run(experiment, run_name=card.id, tags=tags)
    for path in _files(workspace, card):
        client.log_artifact(run.info.run_id, str(path), ARTIFACTS)
    client.set_terminated(run.info.run_id)
    source = f"{run.info.artifact_uri}/{ARTIFACTS}"
    version = client.create_model_version(name, source, run.info.run_id, tags={MODEL_TAG: card.id})
    return str(version.version)


def _files(workspace: Workspace, card: ModelCard) -> list[Path]:
    """The files of a model, its class book excepted, and its dataset version."""
    folder = workspace.registry.folder(card.id)
    names = ("model.safetensors", "model.json", "card.json", "MODEL_CARD.md", "evaluation.json", "parts.json")
    paths = [folder / name for name in names]
    paths.append(workspace.path / "datasets" / f"{card.dataset_version}.json")
    return [path for path in paths if path.is_file()]


def _update(client: MlflowClient, workspace: Workspace, name: str, card: ModelCard, version: str) -> None:
    """Set tags, metrics and changed documents of a version."""
    registry = workspace.registry
    present = client.get_model_version(name, version)
    events, metrics = registry.events(card.id), registry.evaluation(card.id)
    tags = {
        "dsmoe.round": str(card.round),
        "dsmoe.dataset_version": card.dataset_version,
        "dsmoe.class_book": card.class_book,
        "dsmoe.commit": card.commit or "unknown",
        **{f"dsmoe.environment.{key}": value for key, value in card.environment.items()},
    }
    if events:
        tags |= {"dsmoe.decision": events[-1].action, "dsmoe.reason": events[-1].reason[:4000]}
    if metrics is not None:
        tags |= {"dsmoe.map50": f"{metrics.map50:.4f}", "dsmoe.map": f"{metrics.map:.4f}"}
    changed = {key: value for key, value in tags.items() if present.tags.get(key) != value}
    for key, value in changed.items():
        client.set_model_version_tag(name, version, key, value)
    if not changed or present.run_id is None:
        return
    client.log_text(present.run_id, _book_text(workspace, card), f"{ARTIFACTS}/classes.yaml")
    client.log_artifact(present.run_id, str(registry.folder(card.id) / "MODEL_CARD.md"), ARTIFACTS)
    if metrics is not None:
        for key in ("map50", "map", "precision", "recall", "f1"):
            client.log_metric(present.run_id, key, getattr(metrics, key))


def _book_text(workspace: Workspace, card: ModelCard) -> str:
    """The class book that a model was trained with, as YAML."""
    return workspace.class_books.store.version(card.class_book).text
