"""The sweeps of the benchmark commands: detectors, learning curves, ablation rows, settings.

Those over initial weights are in starts.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

from dsmoe_core.config import AblationRow, Frozen, ModelConfig, TrainingConfig
from dsmoe_core.digest import content_id
from dsmoe_core.errors import SettingsError
from dsmoe_core.training.compatibility import require_compatible
from dsmoe_core.training.length import check_schedule
from pipelines.benchmarks.comparison.dsmoe_model import DsmoeModel
from pipelines.benchmarks.comparison.models import DSMOE_SIZES, ModelBuilder, Size
from pipelines.benchmarks.comparison.protocol import BenchmarkModel, Budget
from pipelines.benchmarks.comparison.sweep import EntryPair, Sweep, SweepEntry
from pipelines.benchmarks.comparison.yolo.yolo_model import YOLO_SIZES
from pipelines.settings.changes import apply_changes
from pipelines.settings.validation import validate_settings

DEFAULT_ROW = ModelConfig().ablation
NO_TINY_HEAD = "no-tiny-head"
ABLATION_ROWS = (*get_args(AblationRow), NO_TINY_HEAD)
UNCHANGED = "as it is"
"""The value of ``settings`` in result files for the row without a change."""
FIXED_SETTINGS = ("training.images_seen", "training.seed")
"""Settings that the budget and the seeds of a benchmark determine."""


def detector_sweep(
    names: Sequence[str],
    models: ModelBuilder,
    train_share: float = 1.0,
    yolo_rates: Sequence[float] = (1.0,),
) -> Sweep:
    """DS-MoE and YOLOv8 from random weights; each DS-MoE is compared with each YOLO.

    Args:
        names: ``nano``, ``base``, ``yolov8n``, ``yolov8s``, ...
        yolo_rates: multiples of the learning rate that ultralytics chooses; with several, the inner split
            decides (selection.py).

    Raises:
        SettingsError: a name is unknown or repeated, a rate is repeated, or the share is not in (0, 1].
    """
    require_known(names, (*DSMOE_SIZES, *YOLO_SIZES), "model")
    require_shares([train_share])

    if len(set(yolo_rates)) != len(yolo_rates):
        raise SettingsError(
            f"a rate is repeated in {', '.join(f'{rate:g}' for rate in yolo_rates)}", "Name each once."
        )

    def build(name: str) -> list[BenchmarkModel]:
        size = next((size for size in DSMOE_SIZES if size == name), None)
        return [models.dsmoe_preset(size)] if size else [models.yolo(name, rate) for rate in yolo_rates]

    keys = {"image_px": models.px, "start": "scratch", "labels": train_share}
    entries = []
    for name in names:
        model, *alternatives = build(name)
        entries.append(
            SweepEntry({"model": name, **keys}, model, train_share, alternatives=tuple(alternatives))
        )
    pairs = [
        EntryPair(i, k, {"model": first, "against": second})
        for i, first in enumerate(names)
        for k, second in enumerate(names)
        if first in DSMOE_SIZES and second in YOLO_SIZES
    ]
    return Sweep(entries, pairs)


def with_budgets(sweep: Sweep, minutes: Sequence[float]) -> Sweep:
    """The entries and pairs of a sweep at several budgets, with a training for each budget.

    Args:
        minutes: wall-clock minutes of each budget.

    Raises:
        SettingsError: the list is empty, or a value is not above 0 or repeated.
    """
    if not minutes or min(minutes) <= 0 or len(set(minutes)) != len(minutes):
        given = ",".join(f"{value:g}" for value in minutes)
        raise SettingsError(
            f"the budgets are {given!r}; expected different minutes above 0", "Give some such as 1,2,4."
        )
    count = len(sweep.entries)
    entries = [
        replace(entry, keys={"after": value, **entry.keys}, budget=Budget(minutes=value))
        for value in minutes
        for entry in sweep.entries
    ]
    pairs = [
        EntryPair(i * count + pair.first, i * count + pair.second, {"after": value, **pair.keys})
        for i, value in enumerate(minutes)
        for pair in sweep.pairs
    ]
    return Sweep(entries, pairs)


def ablation_sweep(rows: Sequence[str], size: Size, models: ModelBuilder, train_share: float = 1.0) -> Sweep:
    """Rows A to F of the paper's ablation, and E without the tiny-object head; E is compared with each row.

    Raises:
        SettingsError: a row is unknown, repeated or not for the initial weights, or the share is not in
            (0, 1].
    """
    require_known(rows, ABLATION_ROWS, "row")
    require_shares([train_share])
    full = models.preset(size)

    def configuration(row: str) -> ModelConfig:
        return (
            full.with_tiny_head(False) if row == NO_TINY_HEAD else full.model_copy(update={"ablation": row})
        )

    configurations = {row: configuration(row) for row in rows}
    for row, config in configurations.items():
        models.require_start(config, f"row {row}")
    keys = {"start": models.start, "size": size, "image_px": models.px, "labels": train_share}
    entries = [
        SweepEntry({"row": row, **keys}, models.dsmoe(f"{size}-{row}", config), train_share)
        for row, config in configurations.items()
    ]
    if DEFAULT_ROW not in rows:
        return Sweep(entries, [])
    default = rows.index(DEFAULT_ROW)
    pairs = [
        EntryPair(default, i, {"row": DEFAULT_ROW, "against": row})
        for i, row in enumerate(rows)
        if i != default
    ]
    return Sweep(entries, pairs)


def settings_sweep(
    changes: Sequence[str], size: Size, models: ModelBuilder, train_share: float = 1.0
) -> Sweep:
    """One detector without a change of its settings, and with each change; each is compared with the former.

    Args:
        changes: each ``training.NAME=VALUE`` or ``model.NAME=VALUE``, or several separated by spaces.

    Raises:
        SettingsError: a change is malformed, invalid, fixed by the benchmark, repeated or not for the initial
            weights, or the share is not in (0, 1].
    """
    require_shares([train_share])
    keys = {"start": models.start, "size": size, "image_px": models.px, "labels": train_share}
    entries = [
        SweepEntry({"settings": settings, **keys}, model, train_share)
        for settings, model in changed_models(changes, size, models).items()
    ]
    pairs = [
        EntryPair(i, 0, {"settings": change, "against": UNCHANGED})
        for i, change in enumerate(changes, start=1)
    ]
    return Sweep(entries, pairs)


def changed_models(
    changes: Sequence[str], size: Size, models: ModelBuilder, common: str = ""
) -> dict[str, DsmoeModel]:
    """The model of a preset without a change, named ``UNCHANGED``, and with each change.

    Args:
        common: settings of all models, in the form of a change.

    Raises:
        SettingsError: a change is malformed, invalid, fixed by the benchmark, repeated or not for the initial
            weights.
    """
    if len(set(changes)) != len(changes):
        raise SettingsError(f"a setting is repeated in {', '.join(changes)}", "Name each once.")
    unchanged = _with_change(common, size, models) if common.strip() else models.dsmoe_preset(size)
    changed = {change: _with_change(f"{common} {change}".strip(), size, models) for change in changes}
    return {UNCHANGED: unchanged, **changed}


class _ChangeableSettings(Frozen):
    """Settings that a change may name, as in dsmoe.yaml under ``detector``."""

    model: ModelConfig
    training: TrainingConfig


def _with_change(change: str, size: Size, models: ModelBuilder) -> DsmoeModel:
    raw: dict[str, Any] = {
        "model": models.preset(size).model_dump(),
        "training": models.training.model_dump(),
    }
    raw = apply_changes(raw, change, example="training.matrix_rate=0", fixed=FIXED_SETTINGS)
    settings = validate_settings(_ChangeableSettings, raw, f"--try {change!r}")
    check_schedule(settings.training)
    require_compatible(settings.model, settings.training)
    models.require_start(settings.model, f"--try {change!r}")
    name = f"{size}-{content_id(settings.model_dump(mode='json'))[:6]}"
    return models.dsmoe(name, settings.model, training=settings.training)


def require_known(names: Sequence[str], known: Sequence[str], kind: str) -> None:
    """Refuse names that are unknown or repeated.

    Args:
        kind: what the names are, for the message.

    Raises:
        SettingsError: a name is.
    """
    if unknown := [name for name in names if name not in known]:
        raise SettingsError(
            f"unknown {kind} {unknown[0]!r}; expected one of {', '.join(known)}", "Correct it."
        )
    if len(set(names)) != len(names):
        raise SettingsError(f"a {kind} is repeated in {', '.join(names)}", "Name each once.")


def require_shares(shares: Sequence[float]) -> None:
    """Refuse shares of the labels outside (0, 1].

    Raises:
        SettingsError: a share is.
    """
    if wrong := [share for share in shares if not 0 < share <= 1]:
        raise SettingsError(
            f"the share of the labels is {wrong[0]}; expected above 0 and at most 1", "Correct it."
        )
