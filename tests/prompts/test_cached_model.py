"""Cache of a language model's answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from dsmoe_core.errors import LanguageModelError
from prompts.llm import CachedModel, CountingModel, FakeModel, Message, Reply, generate_structured

MESSAGES = [Message("user", "which colour, 红?")]
RED = {"name": "red"}
BLUE = {"name": "blue"}


class Colour(BaseModel):
    name: str = Field(min_length=2)


class Tone(BaseModel):
    name: str


class ModelWithSettings(FakeModel):
    settings = {"max_tokens": 9}  # noqa: RUF012


def cached_colour(folder: Path, *script: Any, fresh: bool = False) -> str:
    """Name of the colour that a model with this script and this cache folder answers."""
    model = CachedModel(FakeModel(script), folder, fresh=fresh)
    return generate_structured(model, MESSAGES, Colour).name


def test_repeated_request_is_answered_from_the_cache(
    scripted: Callable[..., CountingModel], tmp_path: Path
) -> None:
    model = CachedModel(scripted([RED]), tmp_path)
    assert [generate_structured(model, MESSAGES, Colour).name for _ in range(3)] == ["red"] * 3
    assert (model.usage.replies, model.usage.cached) == (1, 2)


@pytest.mark.parametrize("changed", ["name", "messages", "schema", "settings"])
def test_cache_key_contains_every_part_of_the_request(changed: str, tmp_path: Path) -> None:
    cached_colour(tmp_path, RED)
    model_type = ModelWithSettings if changed == "settings" else FakeModel
    name = "other" if changed == "name" else "fake"
    model = CachedModel(model_type([BLUE], name=name), tmp_path)
    messages = [Message("user", "which tone?")] if changed == "messages" else MESSAGES
    schema: type[Any] = Tone if changed == "schema" else Colour
    assert generate_structured(model, messages, schema).name == "blue"
    assert len(list(tmp_path.iterdir())) == 2


def test_fresh_replaces_the_cached_answer(tmp_path: Path) -> None:
    cached_colour(tmp_path, RED)
    assert cached_colour(tmp_path, BLUE, fresh=True) == "blue"
    assert cached_colour(tmp_path) == "blue"


def test_answer_of_the_second_attempt_is_cached(tmp_path: Path) -> None:
    model = CachedModel(FakeModel(["nonsense", RED]), tmp_path)
    assert generate_structured(model, MESSAGES, Colour).name == "red"
    assert model.usage.replies == 2
    assert cached_colour(tmp_path) == "red"


@pytest.mark.parametrize(
    "entry", ["nonsense", {"name": "r"}, Reply(None, "hm"), LanguageModelError("gone", "Wait.")]
)
def test_invalid_replies_are_not_cached(entry: Any, tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError):
        cached_colour(tmp_path, *[entry] * 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"answer": {"name": "r"}}', '{"answer": 3}', "\udcff"])
def test_damaged_cache_file_is_replaced(damaged: str, tmp_path: Path) -> None:
    cached_colour(tmp_path, RED)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damaged.encode("utf-8", "surrogateescape"))
    assert cached_colour(tmp_path, BLUE) == "blue"
    assert json.loads(file.read_text("utf-8"))["answer"] == BLUE


def test_cache_file_contains_the_request(tmp_path: Path) -> None:
    cached_colour(tmp_path / "new", RED)
    (file,) = (tmp_path / "new").iterdir()
    messages = json.loads(file.read_text("utf-8"))["messages"]
    assert messages == [{"role": "user", "text": "which colour, 红?"}]
