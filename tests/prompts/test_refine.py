"""Refining: what is asked, what is kept, when it stops, and that it goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dsmoe_core.errors import LanguageModelError
from prompts.class_book import ClassBook
from prompts.fake_evaluator import FakeEvaluator
from prompts.glossary import glossary_book
from prompts.llm import CachedModel, CountingModel, FakeModel, Message, Reply
from prompts.refine import Budget, refine
from prompts.refinement import ConfusedPair, Refinement, apply_descriptions

from .conftest import Line, Server

BOOK = glossary_book(["spur", "spurious_copper", "short"])
PAIR = ConfusedPair(first="spur", second="spurious_copper", detector=(9, 2), annotators=(14, 0))
OTHER = ConfusedPair(first="spur", second="short", detector=(1, 0))
TELLING = {"spur": ["thorn", "attached"], "spurious_copper": ["island", "free"], "short": ["bridge"]}


def start() -> ClassBook:
    """A book that has none of the telling words."""
    book = BOOK
    for name in TELLING:
        book = book.with_description(name, "copper where no copper belongs", "person", "Ada")
    return book


def begun(*pairs: ConfusedPair) -> Refinement:
    return Refinement(id="x", book=start().version, evaluator="words", pairs=pairs or (PAIR,))


def evaluator(*pairs: ConfusedPair) -> FakeEvaluator:
    return FakeEvaluator(TELLING, pairs or (PAIR,))


def answer(first: str, second: str, **changes: Any) -> dict[str, Any]:
    def text(words: str) -> dict[str, Any]:
        said = [f"copper that is {words} , said in way {i}" for i in range(3)]
        return {"description": f"copper that is {words} on the board", "paraphrases": said}

    difference = "one hangs on a track and the other one does not"
    return {"difference": difference, "first": text(first), "second": text(second), **changes}


GOOD = answer("a thorn attached", "an island free")
HALF = answer("a thorn", "an island")
BAD = answer("an island free", "a thorn attached")


def test_it_finds_the_better_texts(scripted: Callable[[list[Line]], CountingModel]) -> None:
    model = scripted([HALF, GOOD, BAD])
    state = refine(begun(), start(), model, evaluator(), budget=Budget(rounds=3))
    assert state.stop_reason == "all 3 rounds are done"
    assert [c.id for c in state.candidates] == [0, 1, 2, 3]
    assert (state.best.id, state.is_improved, state.cost.calls) == (2, True, 3)
    assert [c.id for c in state.pareto_front()] == [2]
    best = apply_descriptions(start(), state.best.descriptions)
    entry = best.entry("spur")
    assert entry.description == "copper that is a thorn attached on the board"
    assert (entry.source, entry.author, len(entry.paraphrases)) == ("model", "tiny", 3)
    assert best.entry("short") == start().entry("short")
    assert state.best.scores.pair_margins[PAIR.title] == 1
    assert state.candidates[3].scores.pair_margins[PAIR.title] == -1


def test_the_question_tells_facts_numbers_and_what_was_tried() -> None:
    model = FakeModel([HALF, BAD])
    known = {"spur": ["Measured on its annotated boxes: 12 px wide"], "short": ["not asked"]}
    refine(begun(), start(), model, evaluator(), budget=Budget(rounds=2), context=known)
    first, second = (talk[1].text for talk in model.requests)
    for words in (
        "first 'spur', second 'spurious_copper'",
        "called 9 boxes that are 'spur' 'spurious_copper', and 2 that are 'spurious_copper' 'spur'",
        "corrected 'spur' to 'spurious_copper' 14 times",
        "- Measured on its annotated boxes: 12 px wide",
        "- short: copper where no copper belongs",
    ):
        assert words in first
        assert words in second
    assert "Tried before" not in first
    assert "not asked" not in first
    assert "'spur': copper that is a thorn on the board" in second
    assert "margin between the two 0.000 -> 0.500 (better)" in second
    assert "precision of 'spur' 0.000 -> 0.500 (better)" in second
    assert "precision of the others 0.000 -> 0.000 (as before)" in second


def test_every_pair_has_its_turn_and_keeps_what_the_others_gained() -> None:
    pairs = (PAIR, OTHER)
    model = FakeModel([GOOD, answer("a thorn attached", "a bridge")])
    state = refine(begun(*pairs), start(), model, evaluator(*pairs), budget=Budget(rounds=1))
    assert [c.pair for c in state.candidates] == [None, PAIR.title, OTHER.title]
    assert state.rounds == 1
    assert set(state.best.descriptions) == {"spur", "spurious_copper", "short"}
    assert state.best.scores.mean_ap == 1


def test_texts_that_were_tried_are_not_scored_again() -> None:
    judged = evaluator()
    state = refine(begun(), start(), FakeModel([GOOD, GOOD]), judged, budget=Budget(rounds=2))
    assert len(state.candidates) == 3
    assert len(judged.scored) == 2
    assert [c.id for c in state.pareto_front()] == [1]


def test_calls_are_a_budget_wrong_answers_included() -> None:
    model = FakeModel([GOOD, "nonsense", "nonsense", HALF])
    state = refine(begun(), start(), model, evaluator(), budget=Budget(rounds=9, calls=3))
    assert state.stop_reason == "the budget of 3 calls is used up"
    assert (state.cost.calls, len(state.candidates), len(model.requests)) == (3, 2, 3)
    again = refine(state, start(), model, evaluator(), budget=Budget(rounds=9, calls=3))
    assert again.candidates == state.candidates
    assert len(model.requests) == 3
    more = refine(again, start(), model, evaluator(), budget=Budget(rounds=9, calls=4))
    assert [c.id for c in more.candidates] == [0, 1, 2]


def test_tokens_are_a_budget_over_all_runs_read_and_written(
    scripted: Callable[[list[Line]], CountingModel],
) -> None:
    """The question that goes beyond it is still answered, and none is asked after that."""
    model = scripted([HALF, "nonsense", BAD])
    one = refine(begun(), start(), model, evaluator(), budget=Budget(rounds=1))
    assert one.cost.tokens == model.usage.prompt_tokens + model.usage.completion_tokens > 0
    enough = Budget(rounds=9, tokens=one.cost.tokens + 1)
    state = refine(one, start(), model, evaluator(), budget=enough)
    assert state.stop_reason == f"the budget of {enough.tokens:,} tokens is used up"
    assert state.candidates == one.candidates  # stopped within a question, whose first answer was of no use
    assert (state.cost.calls, state.cost.tokens) == (2, model.usage.tokens)
    again = refine(state, start(), FakeModel([]), evaluator(), budget=enough)
    assert (again.cost.tokens, again.stop_reason) == (state.cost.tokens, state.stop_reason)
    more = refine(again, start(), model, evaluator(), budget=Budget(rounds=2, tokens=10**6))
    assert [c.id for c in more.candidates] == [0, 1, 2]
    assert more.cost.tokens == model.usage.tokens > state.cost.tokens


def test_an_answer_that_is_known_already_costs_nothing(tmp_path: Path) -> None:
    cached = partial(CachedModel, folder=tmp_path)
    for calls in (1, 0):
        model = FakeModel([GOOD][:calls])
        state = refine(begun(), start(), model, evaluator(), budget=Budget(rounds=1), add_cache=cached)
        assert (state.best.id, state.cost.calls, state.cost.tokens > 0) == (1, calls, calls == 1)


def test_behind_a_cache_too_every_repeat_needs_a_budget(tmp_path: Path) -> None:
    model = FakeModel(["nonsense", "nonsense", HALF, GOOD])
    cached = partial(CachedModel, folder=tmp_path)
    state = refine(begun(), start(), model, evaluator(), budget=Budget(rounds=9, calls=2), add_cache=cached)
    assert (len(state.candidates), state.cost.calls, len(model.requests)) == (1, 2, 2)
    assert state.stop_reason == "the budget of 2 calls is used up"
    more = refine(state, start(), model, evaluator(), budget=Budget(rounds=9, calls=4), add_cache=cached)
    assert [c.id for c in more.candidates] == [0, 1, 2]
    assert more.cost.calls == 4


def test_behind_a_cache_tokens_are_looked_at_before_every_repeat(tmp_path: Path) -> None:
    model, cached = FakeModel(["nonsense", HALF]), partial(CachedModel, folder=tmp_path)
    state = refine(begun(), start(), model, evaluator(), budget=Budget(rounds=9, tokens=1), add_cache=cached)
    assert (len(state.candidates), len(model.requests)) == (1, 1)
    assert state.cost.tokens == model.usage.tokens > 1
    assert state.stop_reason == "the budget of 1 tokens is used up"


def test_time_is_a_budget_over_all_runs() -> None:
    ticks = iter(range(0, 9000, 20))
    model = FakeModel([GOOD, HALF, BAD, GOOD])

    def clock() -> float:
        return float(next(ticks))

    budget = Budget(rounds=9, seconds=150)
    state = refine(begun(), start(), model, evaluator(), budget=budget, clock=clock)
    assert state.stop_reason == "the budget of 2.5 minutes is used up"
    assert state.cost.seconds >= 150
    asked = len(model.requests)
    assert 0 < asked < 4
    refine(state, start(), model, evaluator(), budget=budget, clock=clock)
    assert len(model.requests) == asked


def test_nothing_is_better_than_a_good_book() -> None:
    good = apply_descriptions(
        start(), refine(begun(), start(), FakeModel([GOOD]), evaluator(), budget=Budget(1)).best.descriptions
    )
    state = begun().model_copy(update={"book": good.version})
    state = refine(state, good, FakeModel([HALF, BAD]), evaluator(), budget=Budget(rounds=2))
    assert (state.best.id, state.is_improved) == (0, False)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"difference": "none"}, "difference: String should have at least 20"),
        ({"second": None}, "second: Input should be"),
        ({"first": {"description": "a thorn that is attached"}}, "first.paraphrases: Field required"),
        ({"opinion": "x"}, "opinion: Extra inputs"),
    ],
)
def test_nonsense_ends_in_an_error_and_what_is_known_is_kept(
    scripted: Callable[[list[Line]], CountingModel], changes: dict[str, Any], problem: str
) -> None:
    kept: list[Refinement] = []
    before = start().version
    script: list[Line] = [GOOD, *[{**HALF, **changes}] * 3]
    with pytest.raises(LanguageModelError, match=problem):
        refine(begun(), start(), scripted(script), evaluator(), budget=Budget(), save=kept.append)
    assert len(kept[-1].candidates) == 2
    assert kept[-1].cost.calls == 4
    assert "no valid answer in 3 attempts" in kept[-1].stop_reason
    assert start().version == before


def test_line_breaks_do_no_harm_and_what_a_book_cannot_hold_is_named() -> None:
    def with_line(text: str) -> dict[str, Any]:
        return {**GOOD, "first": {**GOOD["first"], "description": text}}

    bell = with_line("a thorn \a attached to it")
    model = FakeModel([with_line("a thorn\n attached\tto a track"), bell, bell, bell])
    kept: list[Refinement] = []
    with pytest.raises(LanguageModelError, match=r"no valid answer in 3 attempts.*control character"):
        refine(begun(), start(), model, evaluator(), budget=Budget(), save=kept.append)
    assert kept[-1].best.descriptions["spur"].description == "a thorn attached to a track"


def test_a_server_that_goes_in_the_middle_and_comes_back(
    server: Server, scripted: Callable[[list[Line]], CountingModel]
) -> None:
    """The second run ends with what an undisturbed one has."""
    kept: list[Refinement] = []
    model = scripted([HALF])
    server.script.append((503, b"gone", 0.0))  # the fake, out of lines, refuses by itself
    with pytest.raises(LanguageModelError):
        refine(begun(), start(), model, evaluator(), budget=Budget(rounds=3), save=kept.append)
    assert [len(state.candidates) for state in kept] == [1, 2, 2]
    assert kept[-1].cost.calls == 1  # one that failed on its way gave nothing
    server.script.clear()
    judged = evaluator()
    state = refine(kept[-1], start(), scripted([GOOD, BAD]), judged, budget=Budget(rounds=3))
    whole = refine(begun(), start(), scripted([HALF, GOOD, BAD]), evaluator(), budget=Budget(rounds=3))
    assert state.candidates == whole.candidates
    assert len(judged.scored) == 2


def test_a_text_that_no_book_can_hold_would_come_from_the_cache_again(tmp_path: Path) -> None:
    """Its author is too long a name."""
    kept: list[Refinement] = []
    for script in ([GOOD], []):
        model, cached = FakeModel(script, name="m" * 201), partial(CachedModel, folder=tmp_path)
        with pytest.raises(LanguageModelError, match=r"what a class book cannot hold.*with --fresh"):
            refine(begun(), start(), model, evaluator(), budget=Budget(), add_cache=cached, save=kept.append)
    assert len(kept[-1].candidates) == 1


def test_ctrl_c_keeps_what_was_spent() -> None:
    kept: list[Refinement] = []

    class Interrupted(FakeModel):
        def reply(self, messages: Sequence[Message], shape: type[BaseModel]) -> Reply:
            if self.requests:
                raise KeyboardInterrupt
            return super().reply(messages, shape)

    with pytest.raises(KeyboardInterrupt):
        refine(begun(), start(), Interrupted([GOOD]), evaluator(), budget=Budget(), save=kept.append)
    assert (kept[-1].cost.calls, kept[-1].stop_reason) == (1, "it was interrupted")
    assert kept[-1].cost.tokens > 0
