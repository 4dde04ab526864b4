"""The sweeps of the benchmark commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import HashEncoder

from dsmoe_core.build import build
from dsmoe_core.errors import SettingsError
from dsmoe_core.warm_start.checkpoint import load_initial_encoder
from pipelines.benchmarks.comparison.dsmoe_model import DsmoeModel
from pipelines.benchmarks.comparison.models import ModelBuilder
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset
from pipelines.benchmarks.comparison.starts import first_model_sweep, start_sweep
from pipelines.benchmarks.comparison.variants import (
    ABLATION_ROWS,
    ablation_sweep,
    detector_sweep,
    settings_sweep,
    with_budgets,
)
from pipelines.settings.detector import StartName
from pipelines.training.weights import weights_of_start


def yolo_python(_: Any) -> Path:
    return Path("python")


@pytest.fixture
def models() -> ModelBuilder:
    return ModelBuilder(320, HashEncoder(), yolo_python)


def test_each_dsmoe_is_compared_with_each_yolo(models: ModelBuilder) -> None:
    sweep = detector_sweep(["nano", "yolov8n", "yolov8s"], models)
    assert [entry.keys["model"] for entry in sweep.entries] == ["nano", "yolov8n", "yolov8s"]
    assert [(pair.first, pair.second) for pair in sweep.pairs] == [(0, 1), (0, 2)]
    assert {entry.model.image_px for entry in sweep.entries} == {320}


def test_rates_are_alternatives_of_yolo_only(models: ModelBuilder, dataset: BenchmarkDataset) -> None:
    nano, yolo = detector_sweep(["nano", "yolov8n"], models, yolo_rates=[0.5, 1, 2]).entries
    assert nano.alternatives == ()
    candidates = (yolo.model, *yolo.alternatives)
    assert [model.name for model in candidates] == ["yolov8n-rate0.5", "yolov8n", "yolov8n-rate2"]
    assert [model.identity(dataset)["rate"] for model in candidates] == [0.5, 1, 2]
    assert {model.identity(dataset)["batch"] for model in candidates} == {models.training.batch}
    with pytest.raises(SettingsError, match="1, 1"):
        detector_sweep(["yolov8n"], models, yolo_rates=[1, 1])


@pytest.mark.parametrize(("names", "named"), [(["nano", "yolo"], "'yolo'"), (["nano"] * 2, "nano, nano")])
def test_unknown_or_repeated_model_is_refused(models: ModelBuilder, names: list[str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        detector_sweep(names, models)


def test_unsupported_input_size_is_refused() -> None:
    with pytest.raises(SettingsError, match="image_px"):
        ModelBuilder(100, HashEncoder(), yolo_python).dsmoe_preset("nano")


def test_only_the_last_ablation_row_lacks_the_tiny_head(models: ModelBuilder) -> None:
    sweep = ablation_sweep(list(ABLATION_ROWS), "nano", models)
    configs = [entry.model.config for entry in sweep.entries if isinstance(entry.model, DsmoeModel)]
    assert [(config.ablation, 4 in config.head_strides) for config in configs] == [
        *((row, True) for row in "ABCDEF"),
        ("E", False),
    ]
    assert [pair.keys for pair in sweep.pairs] == [
        {"row": "E", "against": row} for row in (*"ABCDF", "no-tiny-head")
    ]
    assert ablation_sweep(["A", "B"], "nano", models).pairs == []


def test_the_default_ablation_row_shares_its_trainings_with_the_preset(
    models: ModelBuilder, dataset: BenchmarkDataset
) -> None:
    (entry,) = ablation_sweep(["E"], "nano", models).entries
    assert entry.model.identity(dataset) == models.dsmoe_preset("nano").identity(dataset)


def test_starts_are_compared_at_each_share(models: ModelBuilder, tmp_path: Path) -> None:
    warm = tmp_path / "warm.safetensors"
    warm.touch()
    sweep = start_sweep(["scratch", "warm"], [0.05, 1.0], "nano", models, warm)
    assert [(entry.train_share, entry.keys["start"]) for entry in sweep.entries] == [
        (0.05, "scratch"),
        (0.05, "warm"),
        (1.0, "scratch"),
        (1.0, "warm"),
    ]
    assert [(pair.first, pair.second) for pair in sweep.pairs] == [(1, 0), (3, 2)]
    assert start_sweep(["scratch"], [1.0], "nano", models, None).pairs == []


@pytest.mark.parametrize(
    ("starts", "shares", "warm", "named"),
    [
        (["cold"], [1.0], None, "'cold'"),
        (["scratch"], [0.0], None, r"0\.0"),
        (["warm"], [1.0], None, "None"),
        (["warm"], [1.0], Path("nowhere"), "nowhere"),
    ],
)
def test_wrong_start_or_share_is_refused(
    models: ModelBuilder, starts: list[str], shares: list[float], warm: Path | None, named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        start_sweep(starts, shares, "nano", models, warm)


def test_first_models_differ_in_their_initial_weights_only(
    models: ModelBuilder, dataset: BenchmarkDataset, tmp_path: Path
) -> None:
    files = {name: tmp_path / f"{name}.safetensors" for name in ("warm", "imagenet-lite", "distilled")}
    for file in files.values():
        file.touch()
    starts = ["scratch", *files]
    sweep = first_model_sweep(starts, [3, 2], "nano", models, files)
    assert [(entry.train_images, entry.keys["start"]) for entry in sweep.entries] == [
        (count, start) for count in (3, 2) for start in starts
    ]
    assert [len(entry.sample(dataset, 1).train) for entry in sweep.entries] == [3] * 4 + [2] * 4
    assert [(pair.first, pair.second) for pair in sweep.pairs] == [
        (i, i // 4 * 4) for i in (1, 2, 3, 5, 6, 7)
    ]
    backbones = [entry.model.identity(dataset)["config"]["backbone"] for entry in sweep.entries[:4]]
    assert backbones == ["tiny-vit", "tiny-vit", "efficientnet-lite0", "tiny-vit"]
    with pytest.raises(SettingsError, match="masked"):
        first_model_sweep(["masked"], [3], "nano", models, files)
    with pytest.raises(SettingsError, match="zoom"):
        first_model_sweep(["scratch"], [3], "nano", models, files, ["zoom=9"])
    with pytest.raises(SettingsError, match="0"):
        first_model_sweep(["scratch"], [0], "nano", models, files)


def test_first_models_with_other_settings_are_compared_with_the_first_start_without(
    models: ModelBuilder, tmp_path: Path
) -> None:
    warm = tmp_path / "warm.safetensors"
    warm.touch()
    sweep = first_model_sweep(
        ["warm", "scratch"], [3, 2], "nano", models, {"warm": warm}, ["encoder=frozen", "zoom=0"]
    )
    rows = [(e.keys["labels"], e.keys["settings"], e.keys["start"]) for e in sweep.entries]
    assert rows == [
        (count, settings, start)
        for count in (3, 2)
        for settings in ("as it is", "encoder=frozen", "zoom=0")
        for start in ("warm", "scratch")
    ]
    assert [(pair.first, pair.second) for pair in sweep.pairs] == [
        (i, i // 6 * 6) for i in range(12) if i % 6
    ]
    frozen = sweep.entries[2].model
    assert isinstance(frozen, DsmoeModel)
    assert frozen.training.encoder == "frozen"


def test_budgets_repeat_entries_and_pairs(models: ModelBuilder) -> None:
    sweep = with_budgets(detector_sweep(["nano", "yolov8n"], models), [2.0, 1.0])
    assert [(entry.keys["after"], entry.keys["model"]) for entry in sweep.entries] == [
        (2.0, "nano"),
        (2.0, "yolov8n"),
        (1.0, "nano"),
        (1.0, "yolov8n"),
    ]
    assert [entry.budget.minutes for entry in sweep.entries if entry.budget] == [2.0, 2.0, 1.0, 1.0]
    assert [(pair.first, pair.second, pair.keys["after"]) for pair in sweep.pairs] == [
        (0, 1, 2.0),
        (2, 3, 1.0),
    ]


def test_settings_are_compared_with_the_weights_of_a_start(models: ModelBuilder, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    started = models.with_start("imagenet-lite", weights)
    sweep = settings_sweep(["model.experts=4"], "nano", started)
    for entry in sweep.entries:
        assert entry.keys["start"] == "imagenet-lite"
        assert isinstance(entry.model, DsmoeModel)
        assert entry.model.config.backbone == "efficientnet-lite0"
        assert entry.model.training.encoder == "frozen"
        assert entry.model._encoder_from == weights
    assert models.training.encoder == "train"


@pytest.mark.parametrize(
    ("start", "changes", "named"),
    [
        ("imagenet-lite", ["model.experts=4", "model.ablation=A"], "model.ablation=A"),
        ("imagenet-lite", ["model.ablation=B"], "model.ablation=B"),
        ("imagenet-lite", ["model.backbone=tiny-vit"], "model.backbone=tiny-vit"),
        ("warm", ["model.backbone=efficientnet-lite0"], "model.backbone=efficientnet-lite0"),
        ("warm", ["model.width=32"], "model.width=32"),
        ("warm", ["model.ablation=A"], "model.ablation=A"),
    ],
)
def test_change_that_the_initial_weights_are_not_for_is_refused(
    start: StartName, changes: list[str], named: str, models: ModelBuilder, tmp_path: Path
) -> None:
    started = models.with_start(start, tmp_path / "weights.safetensors")
    with pytest.raises(SettingsError, match=named) as refused:
        settings_sweep(changes, "nano", started)
    assert "--start scratch" in refused.value.remedy
    assert len(settings_sweep(changes, "nano", models.with_start("scratch", None)).entries) > 1


@pytest.mark.parametrize(
    ("start", "change"),
    [
        ("imagenet-lite", "model.ablation=C"),
        ("imagenet-lite", "model.width=32"),
        ("warm", "model.ablation=C model.grid_stride=16"),
    ],
)
def test_change_that_the_initial_weights_are_for_can_be_built(
    start: StartName, change: str, models: ModelBuilder, isolated: Path
) -> None:
    """The weights really fit the network of a change that is not refused."""
    weights = weights_of_start(start, "nano", isolated)
    sweep = settings_sweep([change], "nano", models.with_start(start, weights))
    for entry in sweep.entries:
        assert isinstance(entry.model, DsmoeModel)
        load_initial_encoder(build(entry.model.config), weights)


@pytest.mark.parametrize(
    "change",
    [
        "training.schedule=cosine training.patience=2",
        "model.head_input=f_e training.losses.gradient_conflict=0.1",
    ],
)
def test_change_that_cannot_be_trained_is_refused(change: str, models: ModelBuilder) -> None:
    with pytest.raises(SettingsError):
        settings_sweep(["model.experts=4", change], "nano", models)


def test_ablation_rows_start_from_weights_of_their_backbone(models: ModelBuilder, tmp_path: Path) -> None:
    started = models.with_start("imagenet-lite", tmp_path / "weights.safetensors")
    sweep = ablation_sweep(["C", "F", "no-tiny-head"], "nano", started, 0.5)
    for entry in sweep.entries:
        assert (entry.keys["start"], entry.keys["labels"], entry.train_share) == ("imagenet-lite", 0.5, 0.5)
        assert isinstance(entry.model, DsmoeModel)
        assert entry.model.config.backbone == "efficientnet-lite0"
        assert entry.model.training.encoder == "frozen"
    for row in ("A", "B"):
        with pytest.raises(SettingsError, match=f"row {row}"):
            ablation_sweep(["F", row], "nano", started)
    with pytest.raises(SettingsError, match=r"1\.5"):
        ablation_sweep(["F"], "nano", models, 1.5)


def test_change_of_settings_reaches_the_model(models: ModelBuilder) -> None:
    sweep = settings_sweep(["model.experts=4 training.losses.box=0.05"], "nano", models)
    unchanged, changed = (entry.model for entry in sweep.entries)
    assert isinstance(unchanged, DsmoeModel)
    assert isinstance(changed, DsmoeModel)
    assert changed.config == unchanged.config.model_copy(update={"experts": 4})
    assert changed.training.losses.box == 0.05
    assert unchanged.training == models.training


@pytest.mark.parametrize(
    ("change", "losses", "tail_top_k"),
    [
        ("training.losses.text_balance=0.01", {"text_balance": 0.01}, None),
        ("model.tail_top_k=4", {}, 4),
        (
            "training.losses.gradient_conflict=0.1 training.losses.conflict_threshold=-0.2",
            {"gradient_conflict": 0.1, "conflict_threshold": -0.2},
            None,
        ),
    ],
)
def test_options_of_the_router_can_be_tried(
    models: ModelBuilder, change: str, losses: dict[str, float], tail_top_k: int | None
) -> None:
    unchanged, changed = (entry.model for entry in settings_sweep([change], "nano", models).entries)
    assert isinstance(unchanged, DsmoeModel)
    assert isinstance(changed, DsmoeModel)
    assert changed.config == unchanged.config.model_copy(update={"tail_top_k": tail_top_k})
    assert changed.training.losses == unchanged.training.losses.model_copy(update=losses)


def test_an_impossible_option_of_the_router_is_refused(models: ModelBuilder) -> None:
    with pytest.raises(SettingsError, match="tail_top_k"):
        settings_sweep(["model.tail_top_k=4 model.routing=image"], "nano", models)
