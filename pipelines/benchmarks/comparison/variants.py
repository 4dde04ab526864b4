"""Who enters which benchmark: detectors by name, rows of the paper's ablation, first weights, settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import yaml

from dsmoe_core.config import Frozen, ModelConfig, TrainingConfig
from dsmoe_core.digest import content_id
from dsmoe_core.errors import SettingsError
from dsmoe_core.progress import StatusCallback
from dsmoe_core.schema import Vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder
from pipelines.benchmarks.comparison.dsmoe_model import DsmoeContestant
from pipelines.benchmarks.comparison.protocol import Budget, Contestant
from pipelines.benchmarks.comparison.sweep import Entrant, Field, Pair
from pipelines.benchmarks.comparison.yolo.yolo_model import SIZES, YoloContestant
from pipelines.settings import validate_settings

Size = Literal["nano", "base"]
Interpreter = Callable[[StatusCallback], Path]
OURS: tuple[Size, ...] = ("nano", "base")
WHOLE = "F"
NO_TINY_HEAD = "no-tiny-head"
ROWS = ("A", "B", "C", "D", "E", WHOLE, NO_TINY_HEAD)
STARTS = ("scratch", "warm")
AS_IT_IS = "as it is"
BUDGETED = ("training.images_seen", "training.seed")
"""Settings that a benchmark's budget and seeds decide."""


def detectors(
    names: Sequence[str], px: int, texts: TextEncoder, yolo: Interpreter, labels: float = 1.0
) -> Field:
    """DS-MoE and YOLOv8 of several sizes, all from scratch; each of ours is compared with each of theirs.

    Args:
        labels: share of the training images that all learn from.

    Raises:
        SettingsError: a name is none of them, or the share is none.
    """
    known = (*OURS, *SIZES)
    _refuse_others(names, known, "model")
    _refuse_no_shares([labels])

    def contestant(name: str) -> Contestant:
        preset = next((size for size in OURS if size == name), None)
        return ours(preset, px, texts) if preset else YoloContestant(name, px, yolo)

    said = {"image_px": px, "start": "scratch", "labels": labels}
    entrants = [Entrant({"model": name, **said}, contestant(name), labels) for name in names]
    pairs = [
        Pair(i, k, {"model": one, "against": other})
        for i, one in enumerate(names)
        for k, other in enumerate(names)
        if one in OURS and other in SIZES
    ]
    return Field(entrants, pairs)


def curve(field: Field, minutes: Sequence[float]) -> Field:
    """The same entrants and pairs at several budgets, each trained anew for its own.

    Args:
        minutes: of wall-clock.

    Raises:
        SettingsError: there are none, one is not above 0, or one comes twice.
    """
    if not minutes or min(minutes) <= 0 or len(set(minutes)) != len(minutes):
        given = ",".join(f"{one:g}" for one in minutes)
        raise SettingsError(f"{given!r} are no budgets", "Give different minutes above 0, such as 1,2,4.")
    count = len(field.entrants)
    entrants = [
        replace(one, keys={"after": budget, **one.keys}, budget=Budget(minutes=budget))
        for budget in minutes
        for one in field.entrants
    ]
    pairs = [
        Pair(i * count + pair.one, i * count + pair.other, {"after": budget, **pair.keys})
        for i, budget in enumerate(minutes)
        for pair in field.pairs
    ]
    return Field(entrants, pairs)


def ablation(rows: Sequence[str], preset: Size, px: int, texts: TextEncoder) -> Field:
    """Rows A to F of the paper's ablation, and F without the tiny-object head; F is compared with each.

    Raises:
        SettingsError: a row is none of them.
    """
    _refuse_others(rows, ROWS, "row")
    whole = _shape(preset, px)

    def shape(row: str) -> ModelConfig:
        return whole.with_tiny_head(False) if row == NO_TINY_HEAD else _of_row(whole, row)

    entrants = [
        Entrant(
            {"row": row, "size": preset, "image_px": px},
            DsmoeContestant(f"{preset}-{row}", shape(row), texts),
        )
        for row in rows
    ]
    if WHOLE not in rows:
        return Field(entrants, [])
    f = rows.index(WHOLE)
    pairs = [Pair(f, i, {"row": WHOLE, "against": row}) for i, row in enumerate(rows) if i != f]
    return Field(entrants, pairs)


def starts(
    names: Sequence[str],
    shares: Sequence[float],
    preset: Size,
    px: int,
    texts: TextEncoder,
    warm: Path | None,
) -> Field:
    """One detector from scratch and from a warm start, at several shares of the labels; compared at each.

    Args:
        warm: file of the image encoder's first weights.

    Raises:
        SettingsError: a start is unknown, a share is none, or there is no file for the warm start.
    """
    _refuse_others(names, STARTS, "start")
    _refuse_no_shares(shares)
    if "warm" in names and (warm is None or not warm.is_file()):
        raise SettingsError(
            f"there is no file for the warm start at {warm}", "Name one with --warm, or leave out `warm`."
        )
    contestants = {
        name: ours(preset, px, texts, encoder_from=warm if name == "warm" else None) for name in names
    }
    entrants = [
        Entrant(
            {"labels": share, "start": name, "model": preset, "image_px": px}, contestants[name], labels=share
        )
        for share in shares
        for name in names
    ]
    places = {(one.labels, one.keys["start"]): i for i, one in enumerate(entrants)}
    pairs = [
        Pair(
            places[share, "warm"],
            places[share, "scratch"],
            {"labels": share, "start": "warm", "against": "scratch"},
        )
        for share in shares
        if set(names) == set(STARTS)
    ]
    return Field(entrants, pairs)


class Tried(Frozen):
    """What may be tried, by its names in dsmoe.yaml under ``detector``."""

    model: ModelConfig
    training: TrainingConfig


def settings(tries: Sequence[str], preset: Size, px: int, texts: TextEncoder, labels: float = 1.0) -> Field:
    """One detector as it is and with other settings; each of these is compared with the former.

    Args:
        tries: each ``training.NAME=VALUE`` or ``model.NAME=VALUE``, or several with spaces between.
        labels: share of the training images that all learn from.

    Raises:
        SettingsError: one is none, has a wrong value, is decided otherwise or comes twice.
    """
    _refuse_no_shares([labels])
    if len(set(tries)) != len(tries):
        raise SettingsError(f"a setting comes twice in {', '.join(tries)}", "Name each once.")
    said = {"size": preset, "image_px": px, "labels": labels}
    first = Entrant({"settings": AS_IT_IS, **said}, ours(preset, px, texts), labels)
    others = [Entrant({"settings": text, **said}, _trying(text, preset, px, texts), labels) for text in tries]
    pairs = [Pair(i, 0, {"settings": text, "against": AS_IT_IS}) for i, text in enumerate(tries, start=1)]
    return Field([first, *others], pairs)


def _trying(text: str, preset: Size, px: int, texts: TextEncoder) -> DsmoeContestant:
    raw: dict[str, Any] = {
        "model": _shape(preset, px).model_dump(),
        "training": TrainingConfig().model_dump(),
    }
    for part in text.split():
        path, _, value = part.partition("=")
        if not value or path in BUDGETED:
            why = "decided by budget and seeds" if value else "not of the form NAME=VALUE"
            raise SettingsError(f"{part!r} is {why}", "Give some such as training.matrix_rate=0.")
        *rooms, name = path.split(".")
        place = raw
        for room in rooms:
            place[room] = dict(place.get(room) or {})
            place = place[room]
        place[name] = yaml.safe_load(value)
    found = validate_settings(Tried, raw, f"--try {text!r}")
    name = f"{preset}-{content_id(found.model_dump(mode='json'))[:6]}"
    return DsmoeContestant(name, found.model, texts, training=found.training)


def ours(
    name: Size,
    px: int,
    texts: TextEncoder,
    *,
    words: Vocabulary | None = None,
    encoder_from: Path | None = None,
    class_subsets: float = 0.0,
) -> DsmoeContestant:
    """DS-MoE of a preset; see :class:`DsmoeContestant`, and ``TrainingConfig`` for the subsets."""
    training = TrainingConfig(class_subsets=class_subsets)
    return DsmoeContestant(
        name, _shape(name, px), texts, training=training, words=words, encoder_from=encoder_from
    )


def _shape(preset: Size, px: int) -> ModelConfig:
    """A preset at this side of the image.

    Raises:
        SettingsError: the side fits no network.
    """
    raw = {**ModelConfig.of_size(preset).model_dump(), "image_px": px}
    return validate_settings(ModelConfig, raw, "the command line")


def _of_row(whole: ModelConfig, row: str) -> ModelConfig:
    return whole.model_copy(update={"ablation": row})


def _refuse_others(names: Sequence[str], known: Sequence[str], what: str) -> None:
    if wrong := [name for name in names if name not in known]:
        raise SettingsError(f"{wrong[0]!r} is no {what}; there are {', '.join(known)}", "Name some of these.")
    if len(set(names)) != len(names):
        raise SettingsError(f"a {what} comes twice in {', '.join(names)}", "Name each once.")


def _refuse_no_shares(shares: Sequence[float]) -> None:
    if wrong := [share for share in shares if not 0 < share <= 1]:
        raise SettingsError(f"{wrong[0]} is no share of the labels", "Give some above 0 and at most 1.")
