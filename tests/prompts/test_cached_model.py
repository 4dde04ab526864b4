"""Answers that are kept: nothing is asked twice, and nothing of no use is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from dsmoe_core.errors import LanguageModelError
from prompts.llm import CachedModel, CountingModel, FakeModel, Message, Reply, generate_structured

ASKED = [Message("user", "which colour, 红?")]
RED = {"name": "red"}
BLUE = {"name": "blue"}


class Colour(BaseModel):
    name: str = Field(min_length=2)


class Tone(BaseModel):
    name: str


class Settled(FakeModel):
    settings = {"max_tokens": 9}  # noqa: RUF012


def test_the_same_question_is_asked_once(scripted: Callable[..., CountingModel], tmp_path: Path) -> None:
    model = CachedModel(scripted([RED]), tmp_path)
    assert [generate_structured(model, ASKED, Colour).name for _ in range(3)] == ["red"] * 3
    assert (model.usage.replies, model.usage.cached) == (1, 2)


@pytest.mark.parametrize("other", ["name", "messages", "schema", "settings"])
def test_another_question_is_another(other: str, tmp_path: Path) -> None:
    generate_structured(CachedModel(FakeModel([RED]), tmp_path), ASKED, Colour)
    kind = Settled if other == "settings" else FakeModel
    model = CachedModel(kind([BLUE], name="other" if other == "name" else "fake"), tmp_path)
    messages = [Message("user", "which tone?")] if other == "messages" else ASKED
    shape: type[Any] = Tone if other == "schema" else Colour
    assert generate_structured(model, messages, shape).name == "blue"
    assert len(list(tmp_path.iterdir())) == 2


def test_fresh_asks_anew_and_keeps_the_new_answer(tmp_path: Path) -> None:
    generate_structured(CachedModel(FakeModel([RED]), tmp_path), ASKED, Colour)
    assert (
        generate_structured(CachedModel(FakeModel([BLUE]), tmp_path, fresh=True), ASKED, Colour).name
        == "blue"
    )
    assert generate_structured(CachedModel(FakeModel([]), tmp_path), ASKED, Colour).name == "blue"


def test_an_answer_found_on_the_second_attempt_is_the_answer(tmp_path: Path) -> None:
    model = CachedModel(FakeModel(["nonsense", RED]), tmp_path)
    assert generate_structured(model, ASKED, Colour).name == "red"
    assert model.usage.replies == 2
    assert generate_structured(CachedModel(FakeModel([]), tmp_path), ASKED, Colour).name == "red"


@pytest.mark.parametrize(
    "line", ["nonsense", {"name": "r"}, Reply(None, "hm"), LanguageModelError("gone", "Wait.")]
)
def test_what_is_of_no_use_is_not_kept(line: Any, tmp_path: Path) -> None:
    model = CachedModel(FakeModel([line] * 3), tmp_path)
    with pytest.raises(LanguageModelError):
        generate_structured(model, ASKED, Colour)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"answer": {"name": "r"}}', '{"answer": 3}', "\udcff"])
def test_what_is_torn_is_asked_again(torn: str, tmp_path: Path) -> None:
    generate_structured(CachedModel(FakeModel([RED]), tmp_path), ASKED, Colour)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(torn.encode("utf-8", "surrogateescape"))
    assert generate_structured(CachedModel(FakeModel([BLUE]), tmp_path), ASKED, Colour).name == "blue"
    assert json.loads(kept.read_text("utf-8"))["answer"] == BLUE


def test_a_kept_answer_says_what_was_asked(tmp_path: Path) -> None:
    generate_structured(CachedModel(FakeModel([RED]), tmp_path / "new"), ASKED, Colour)
    (kept,) = (tmp_path / "new").iterdir()
    assert json.loads(kept.read_text("utf-8"))["messages"] == [{"role": "user", "text": "which colour, 红?"}]
