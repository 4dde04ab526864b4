"""The steps that close a round, against the fake Label Studio and the stub detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsmoe_core.config import ModelConfig
from dsmoe_core.errors import SettingsError, WorkspaceError
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.context import LoopContext
from pipelines.rounds.harvesting import harvest
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.promotion import evaluate, promote
from pipelines.rounds.retraining import make_dataset, train
from pipelines.settings.gate import GateSettings
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.registry import Metrics

Label = Callable[[LoopContext], None]


class CountingDetector(StubDetector):
    """Counts its trainings and evaluations."""

    def __init__(self) -> None:
        self.fits = self.loads = 0

    def fit(self, **arguments: Any) -> dict[str, Any]:
        self.fits += 1
        return super().fit(**arguments)

    def load(self, model: Path, vocabulary: Any) -> Any:
        self.loads += 1
        return super().load(model, vocabulary)


@pytest.fixture
def annotated(context: LoopContext, label: Label) -> LoopContext:
    """Round 0 is open, and all its images are annotated."""
    open_round(context)
    label(context)
    return replace(context, detector=CountingDetector())


@pytest.fixture
def trained(annotated: LoopContext) -> tuple[LoopContext, str]:
    """A context and the candidate of round 0, which is not evaluated yet."""
    harvest(annotated, 0, partial=False)
    annotated.workspace.journal.begin(0, "harvest")
    annotated.workspace.journal.finish(0, "harvest", {"counts": {}})
    dataset = make_dataset(annotated, 0)["dataset_version"]
    return annotated, train(annotated, 0, dataset)["model"]


def with_gate(context: LoopContext, **gate: object) -> None:
    settings = context.workspace.settings
    gate = {"checks": ["min_gain"], **gate}
    context.workspace.settings = settings.model_copy(update={"gate": GateSettings.model_validate(gate)})


def register_copy(context: LoopContext, model: str, name: str, value: float) -> None:
    """Register a copy of a model under another id, with this mAP."""
    registry = context.workspace.registry
    metrics = registry.evaluation(model)
    assert metrics is not None
    registry.register(registry.card(model).model_copy(update={"id": name}))
    registry.save_evaluation(name, metrics.model_copy(update={"map": value}))
    for file in registry.folder(model).glob("model.*"):
        (registry.folder(name) / file.name).write_bytes(file.read_bytes())


def test_harvest_counts_what_came_back(annotated: LoopContext) -> None:
    counts = harvest(annotated, 0, partial=False)["counts"]
    assert (counts["sent"], counts["answered"], counts["new_images"]) == (3, 3, 3)
    assert counts["added"] == counts["new_boxes"] > 0
    assert harvest(annotated, 0, partial=False)["counts"] == counts


def test_harvest_refuses_a_round_whose_images_are_out(context: LoopContext) -> None:
    open_round(context)
    with pytest.raises(WorkspaceError, match="3 of 3"):
        harvest(context, 0, partial=False)


def test_dataset_version_has_the_labels_and_its_parent(annotated: LoopContext, label: Label) -> None:
    harvest(annotated, 0, partial=False)
    first = make_dataset(annotated, 0)
    assert make_dataset(annotated, 0) == first
    version = annotated.workspace.dataset_version(first["dataset_version"])
    assert (len(version.train), version.boxes, version.parent) == (3, first["boxes"], None)
    assert version.test_set == annotated.workspace.journal.value("test_set")
    close_round(annotated)
    open_round(annotated)
    label(annotated)
    harvest(annotated, 1, partial=False)
    second = annotated.workspace.dataset_version(make_dataset(annotated, 1)["dataset_version"])
    assert second.parent == first["dataset_version"]


@pytest.mark.parametrize(
    ("start", "noise", "zoom"),
    [("warm", 0.0, 0.0), ("scratch", 0.3, 0.5)],
    ids=["frozen", "nothing to freeze"],
)
def test_card_has_the_augmentations_in_effect(
    start: str, noise: float, zoom: float, annotated: LoopContext
) -> None:
    workspace = annotated.workspace
    settings = workspace.settings.model_dump()
    settings["detector"] |= {"start": start, "model": ModelConfig().model_dump()}
    settings["detector"]["training"] |= {"encoder": "frozen", "noise": 0.3}
    workspace.settings = WorkspaceSettings.model_validate(settings)
    harvest(annotated, 0, partial=False)
    model = train(annotated, 0, make_dataset(annotated, 0)["dataset_version"])["model"]
    config = workspace.registry.card(model).training["config"]
    assert (config["encoder"], config["noise"], config["zoom"], config["turns"]) == (
        "frozen",
        noise,
        zoom,
        1.0,
    )


def test_training_is_not_repeated_and_its_card_is_written_once(trained: tuple[LoopContext, str]) -> None:
    context, model = trained
    workspace, detector = context.workspace, context.detector
    assert isinstance(detector, CountingDetector)
    card = (workspace.registry.folder(model) / "card.json").read_bytes()
    dataset = workspace.registry.card(model).dataset_version
    assert train(context, 0, dataset) == {"model": model}
    assert detector.fits == 1
    evaluate(context, model)
    assert (workspace.registry.folder(model) / "card.json").read_bytes() == card


def test_evaluation_returns_the_metrics_and_keeps_them(trained: tuple[LoopContext, str]) -> None:
    context, model = trained
    detector = context.detector
    assert isinstance(detector, CountingDetector)
    assert context.workspace.registry.evaluation(model) is None
    result = evaluate(context, model)["metrics"]
    assert result.keys() == {model}
    assert Metrics.model_validate(result[model]) == context.workspace.registry.evaluation(model)
    assert evaluate(context, model)["metrics"] == result
    assert detector.loads == 1


def test_promotion_takes_the_metrics_of_the_evaluation(trained: tuple[LoopContext, str]) -> None:
    context, model = trained
    detector = context.detector
    assert isinstance(detector, CountingDetector)
    metrics = evaluate(context, model)["metrics"]
    (context.workspace.registry.folder(model) / "evaluation.json").unlink()
    result = promote(context, 0, model, metrics)
    assert detector.loads == 1
    assert (result["map"], result["map50"]) == (metrics[model]["map"], metrics[model]["map50"])
    assert (result["promoted"], result["model"]) == (True, model) == (True, context.workspace.champion())


def test_promotion_after_a_kill_gives_the_same_result(trained: tuple[LoopContext, str]) -> None:
    context, model = trained
    metrics = evaluate(context, model)["metrics"]
    first = promote(context, 0, model, metrics)
    again = promote(context, 0, model, metrics)
    assert (again["promoted"], again["reason"]) == (first["promoted"], first["reason"])
    assert len(context.workspace.registry.history()) == 1


@pytest.mark.parametrize(("champion_map", "promoted"), [(0.0, True), (1.0, False)])
def test_gate_compares_with_the_model_that_is_champion_now(
    trained: tuple[LoopContext, str], champion_map: float, promoted: bool
) -> None:
    """A model that was promoted by hand after the evaluation is evaluated before the decision."""
    context, model = trained
    metrics = evaluate(context, model)["metrics"]
    register_copy(context, model, "by-hand", champion_map)
    context.workspace.registry.promote("by-hand", "by hand")
    result = promote(context, 0, model, metrics)
    assert result["promoted"] == promoted
    assert result["checks"]["min_gain"]["outcome"] == ("pass" if promoted else "fail")
    assert result["checks"]["min_gain"]["values"] == {
        "candidate": metrics[model]["map"],
        "champion": champion_map,
        "min_gain": 0.0,
    }
    assert context.workspace.champion() == (model if promoted else "by-hand")


def test_min_gain_of_the_settings_is_required(trained: tuple[LoopContext, str]) -> None:
    context, model = trained
    metrics = evaluate(context, model)["metrics"]
    value = metrics[model]["map"]
    register_copy(context, model, "before", value - 0.01)
    context.workspace.registry.promote("before", "by hand")
    with_gate(context, min_gain=0.02)
    assert not promote(context, 0, model, metrics)["promoted"]
    with_gate(context, min_gain=0.005)
    assert promote(context, 0, model, metrics)["promoted"]


def test_champion_is_the_teacher_if_the_settings_say_so(
    trained: tuple[LoopContext, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id of the model depends on the setting, as soon as there is a champion."""
    context, first = trained
    workspace, detector = context.workspace, context.detector
    teachers: list[Path | None] = []
    fit = detector.fit
    monkeypatch.setattr(detector, "fit", lambda **given: teachers.append(given["teacher"]) or fit(**given))
    dataset = workspace.registry.card(first).dataset_version
    settings = workspace.settings

    def distilling(on: bool) -> None:
        changed = settings.detector.model_copy(update={"distill_champion": on})
        workspace.settings = settings.model_copy(update={"detector": changed})

    distilling(True)
    assert train(context, 0, dataset)["model"] == first, "without a champion there is no teacher"
    workspace.registry.promote(first, "by hand")
    models = []
    for on in (False, True):
        distilling(on)
        models.append(train(context, 1, dataset)["model"])
    assert teachers == [None, workspace.registry.folder(first)]
    assert len({first, *models}) == 3
    assert [workspace.registry.card(model).training["teacher"] for model in models] == [None, first]


def test_unknown_gate_check_is_refused_before_training(annotated: LoopContext) -> None:
    detector = annotated.detector
    assert isinstance(detector, CountingDetector)
    with_gate(annotated, checks=["max_latency"])
    with pytest.raises(SettingsError, match="'max_latency'"):
        close_round(annotated)
    assert detector.fits == 0


def test_closed_round_keeps_the_results_of_its_checks(annotated: LoopContext, label: Label) -> None:
    close_round(annotated)
    open_round(annotated)
    label(annotated)
    row = close_round(annotated)
    result = annotated.workspace.journal.rounds()[1].result or {}
    assert (result["checks"]["min_gain"]["outcome"] == "pass") == row.promoted
    assert result["checks"]["min_gain"]["values"]["candidate"] == row.map
