"""Refinement of confused classes: prompts, candidates, budgets and continuing after an interruption."""

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

from .conftest import ScriptedServer, ScriptEntry

PAIR = ConfusedPair(first="spur", second="spurious_copper", detector=(9, 2), annotators=(14, 0))
SECOND_PAIR = ConfusedPair(first="spur", second="short", detector=(1, 0))
KEYWORDS = {"spur": ["thorn", "attached"], "spurious_copper": ["island", "free"], "short": ["bridge"]}
Scripted = Callable[[list[ScriptEntry]], CountingModel]


def original() -> ClassBook:
    """A class book without any of the keywords."""
    book = glossary_book(["spur", "spurious_copper", "short"])
    for name in KEYWORDS:
        book = book.with_description(name, "copper where no copper belongs", "person", "Ada")
    return book


def new_refinement(*pairs: ConfusedPair) -> Refinement:
    return Refinement(id="x", book=original().version, evaluator="keywords", pairs=pairs or (PAIR,))


def evaluator(*pairs: ConfusedPair) -> FakeEvaluator:
    return FakeEvaluator(KEYWORDS, pairs or (PAIR,))


def answer(first: str, second: str, **changes: Any) -> dict[str, Any]:
    def description(text: str) -> dict[str, Any]:
        paraphrases = [f"copper that is {text} , said in way {i}" for i in range(3)]
        return {"description": f"copper that is {text} on the board", "paraphrases": paraphrases}

    difference = "one hangs on a track and the other one does not"
    return {"difference": difference, "first": description(first), "second": description(second), **changes}


GOOD = answer("a thorn attached", "an island free")
HALF = answer("a thorn", "an island")
BAD = answer("an island free", "a thorn attached")


def test_best_candidate_is_found(scripted: Scripted) -> None:
    model = scripted([HALF, GOOD, BAD])
    state = refine(new_refinement(), original(), model, evaluator(), budget=Budget(rounds=3))
    assert "3 rounds" in state.stop_reason
    assert [c.id for c in state.candidates] == [0, 1, 2, 3]
    assert (state.best.id, state.is_improved, state.cost.calls) == (2, True, 3)
    assert [c.id for c in state.pareto_front()] == [2]
    best = apply_descriptions(original(), state.best.descriptions)
    entry = best.entry("spur")
    assert entry.description == "copper that is a thorn attached on the board"
    assert (entry.source, entry.author, len(entry.paraphrases)) == ("model", "tiny", 3)
    assert best.entry("short") == original().entry("short")
    assert state.best.scores.pair_margins[PAIR.title] == 1
    assert state.candidates[3].scores.pair_margins[PAIR.title] == -1


def test_prompt_contains_facts_counts_and_earlier_attempts() -> None:
    model = FakeModel([HALF, BAD])
    context = {"spur": ["Measured on its annotated boxes: 12 px wide"], "short": ["of another class"]}
    refine(new_refinement(), original(), model, evaluator(), budget=Budget(rounds=2), context=context)
    first, second = (messages[1].text for messages in model.requests)
    for text in (
        "first 'spur', second 'spurious_copper'",
        "called 9 boxes that are 'spur' 'spurious_copper', and 2 that are 'spurious_copper' 'spur'",
        "corrected 'spur' to 'spurious_copper' 14 times",
        "- Measured on its annotated boxes: 12 px wide",
        "- short: copper where no copper belongs",
    ):
        assert text in first
        assert text in second
    assert "->" not in first
    assert "of another class" not in first
    assert "'spur': copper that is a thorn on the board" in second
    assert "0.000 -> 0.500 (better)" in second
    assert "precision of 'spur' 0.000 -> 0.500 (better)" in second
    assert "0.000 -> 0.000 (as before)" in second


def test_pairs_take_turns_and_keep_the_gains_of_other_pairs() -> None:
    pairs = (PAIR, SECOND_PAIR)
    model = FakeModel([GOOD, answer("a thorn attached", "a bridge")])
    state = refine(new_refinement(*pairs), original(), model, evaluator(*pairs), budget=Budget(rounds=1))
    assert [c.pair for c in state.candidates] == [None, PAIR.title, SECOND_PAIR.title]
    assert state.rounds == 1
    assert set(state.best.descriptions) == {"spur", "spurious_copper", "short"}
    assert state.best.scores.mean_ap == 1


def test_equal_descriptions_are_scored_once() -> None:
    scorer = evaluator()
    state = refine(new_refinement(), original(), FakeModel([GOOD, GOOD]), scorer, budget=Budget(rounds=2))
    assert len(state.candidates) == 3
    assert len(scorer.scored) == 2
    assert [c.id for c in state.pareto_front()] == [1]


def test_budget_of_calls_includes_invalid_replies() -> None:
    model = FakeModel([GOOD, "nonsense", "nonsense", HALF])
    budget = Budget(rounds=9, calls=3)
    state = refine(new_refinement(), original(), model, evaluator(), budget=budget)
    assert "3 calls" in state.stop_reason
    assert (state.cost.calls, len(state.candidates), len(model.requests)) == (3, 2, 3)
    unchanged = refine(state, original(), model, evaluator(), budget=budget)
    assert unchanged.candidates == state.candidates
    assert len(model.requests) == 3
    continued = refine(unchanged, original(), model, evaluator(), budget=Budget(rounds=9, calls=4))
    assert [c.id for c in continued.candidates] == [0, 1, 2]


def test_budget_of_tokens_counts_over_all_runs(scripted: Scripted) -> None:
    """The request that exceeds the budget is still answered; no further one is sent."""
    model = scripted([HALF, "nonsense", BAD])
    first = refine(new_refinement(), original(), model, evaluator(), budget=Budget(rounds=1))
    assert first.cost.tokens == model.usage.prompt_tokens + model.usage.completion_tokens > 0
    budget = Budget(rounds=9, tokens=first.cost.tokens + 1)
    state = refine(first, original(), model, evaluator(), budget=budget)
    assert f"{budget.tokens:,} tokens" in state.stop_reason
    assert state.candidates == first.candidates  # stopped after an invalid reply
    assert (state.cost.calls, state.cost.tokens) == (2, model.usage.tokens)
    unchanged = refine(state, original(), FakeModel([]), evaluator(), budget=budget)
    assert (unchanged.cost.tokens, unchanged.stop_reason) == (state.cost.tokens, state.stop_reason)
    larger = Budget(rounds=2, tokens=10**6)
    continued = refine(unchanged, original(), model, evaluator(), budget=larger)
    assert [c.id for c in continued.candidates] == [0, 1, 2]
    assert continued.cost.tokens == model.usage.tokens > state.cost.tokens


def test_cached_answer_costs_nothing(tmp_path: Path) -> None:
    add_cache = partial(CachedModel, folder=tmp_path)
    for calls in (1, 0):
        model = FakeModel([GOOD][:calls])
        budget = Budget(rounds=1)
        state = refine(new_refinement(), original(), model, evaluator(), budget=budget, add_cache=add_cache)
        assert (state.best.id, state.cost.calls, state.cost.tokens > 0) == (1, calls, calls == 1)


def test_budget_is_checked_before_every_attempt_behind_a_cache(tmp_path: Path) -> None:
    model = FakeModel(["nonsense", "nonsense", HALF, GOOD])
    run = partial(refine, add_cache=partial(CachedModel, folder=tmp_path))
    state = run(new_refinement(), original(), model, evaluator(), budget=Budget(rounds=9, calls=2))
    assert (len(state.candidates), state.cost.calls, len(model.requests)) == (1, 2, 2)
    assert "2 calls" in state.stop_reason
    continued = run(state, original(), model, evaluator(), budget=Budget(rounds=9, calls=4))
    assert [c.id for c in continued.candidates] == [0, 1, 2]
    assert continued.cost.calls == 4


def test_tokens_are_checked_before_every_attempt_behind_a_cache(tmp_path: Path) -> None:
    model, add_cache = FakeModel(["nonsense", HALF]), partial(CachedModel, folder=tmp_path)
    budget = Budget(rounds=9, tokens=1)
    state = refine(new_refinement(), original(), model, evaluator(), budget=budget, add_cache=add_cache)
    assert (len(state.candidates), len(model.requests)) == (1, 1)
    assert state.cost.tokens == model.usage.tokens > 1
    assert "1 tokens" in state.stop_reason


def test_budget_of_time_counts_over_all_runs() -> None:
    ticks = iter(range(0, 9000, 20))
    model = FakeModel([GOOD, HALF, BAD, GOOD])

    def clock() -> float:
        return float(next(ticks))

    budget = Budget(rounds=9, seconds=150)
    state = refine(new_refinement(), original(), model, evaluator(), budget=budget, clock=clock)
    assert "2.5 minutes" in state.stop_reason
    assert state.cost.seconds >= 150
    requests = len(model.requests)
    assert 0 < requests < 4
    refine(state, original(), model, evaluator(), budget=budget, clock=clock)
    assert len(model.requests) == requests


def test_original_stays_best_without_gain() -> None:
    first = refine(new_refinement(), original(), FakeModel([GOOD]), evaluator(), budget=Budget(1))
    good = apply_descriptions(original(), first.best.descriptions)
    state = new_refinement().model_copy(update={"book": good.version})
    state = refine(state, good, FakeModel([HALF, BAD]), evaluator(), budget=Budget(rounds=2))
    assert (state.best.id, state.is_improved) == (0, False)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"difference": "none"}, "difference"),
        ({"second": None}, "second"),
        ({"first": {"description": "a thorn that is attached"}}, r"first\.paraphrases"),
        ({"opinion": "x"}, "opinion"),
    ],
)
def test_invalid_answers_are_an_error_after_the_state_is_saved(
    scripted: Scripted, changes: dict[str, Any], field: str
) -> None:
    saved: list[Refinement] = []
    before = original().version
    script: list[ScriptEntry] = [GOOD, *[{**HALF, **changes}] * 3]
    with pytest.raises(LanguageModelError, match=field):
        refine(
            new_refinement(), original(), scripted(script), evaluator(), budget=Budget(), save=saved.append
        )
    assert len(saved[-1].candidates) == 2
    assert saved[-1].cost.calls == 4
    assert field.replace("\\", "") in saved[-1].stop_reason
    assert original().version == before


def test_line_breaks_become_spaces_and_control_characters_are_refused() -> None:
    def with_description(text: str) -> dict[str, Any]:
        return {**GOOD, "first": {**GOOD["first"], "description": text}}

    bell = with_description("a thorn \a attached to it")
    model = FakeModel([with_description("a thorn\n attached\tto a track"), bell, bell, bell])
    saved: list[Refinement] = []
    with pytest.raises(LanguageModelError, match=r"3 attempts.*\\x07"):
        refine(new_refinement(), original(), model, evaluator(), budget=Budget(), save=saved.append)
    assert saved[-1].best.descriptions["spur"].description == "a thorn attached to a track"


def test_refinement_continues_after_a_server_failure(server: ScriptedServer, scripted: Scripted) -> None:
    """The result equals that of an uninterrupted run."""
    saved: list[Refinement] = []
    budget = Budget(rounds=3)
    model = scripted([HALF])
    server.script.append((503, b"gone", 0.0))  # the fake raises an error at the end of its script
    with pytest.raises(LanguageModelError):
        refine(new_refinement(), original(), model, evaluator(), budget=budget, save=saved.append)
    assert [len(state.candidates) for state in saved] == [1, 2, 2]
    assert saved[-1].cost.calls == 1  # the failed request is not counted
    server.script.clear()
    scorer = evaluator()
    continued = refine(saved[-1], original(), scripted([GOOD, BAD]), scorer, budget=budget)
    uninterrupted = refine(
        new_refinement(), original(), scripted([HALF, GOOD, BAD]), evaluator(), budget=budget
    )
    assert continued.candidates == uninterrupted.candidates
    assert len(scorer.scored) == 2


def test_answer_that_is_not_valid_in_a_class_book_is_refused_from_the_cache_too(tmp_path: Path) -> None:
    """Here the author's name is too long."""
    saved: list[Refinement] = []
    add_cache = partial(CachedModel, folder=tmp_path)
    for script in ([GOOD], []):
        model = FakeModel(script, name="m" * 201)
        with pytest.raises(LanguageModelError, match=r"author.*--fresh"):
            refine(
                new_refinement(),
                original(),
                model,
                evaluator(),
                budget=Budget(),
                add_cache=add_cache,
                save=saved.append,
            )
    assert len(saved[-1].candidates) == 1


def test_cost_is_saved_on_ctrl_c() -> None:
    saved: list[Refinement] = []

    class InterruptedModel(FakeModel):
        def reply(self, messages: Sequence[Message], schema: type[BaseModel]) -> Reply:
            if self.requests:
                raise KeyboardInterrupt
            return super().reply(messages, schema)

    model = InterruptedModel([GOOD])
    with pytest.raises(KeyboardInterrupt):
        refine(new_refinement(), original(), model, evaluator(), budget=Budget(), save=saved.append)
    assert saved[-1].cost.calls == 1
    assert saved[-1].cost.tokens > 0
    assert saved[-1].stop_reason
