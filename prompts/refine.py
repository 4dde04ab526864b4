"""Refines the texts of confused classes: a model writes, the detector scores, what is best goes on.

Reflective prompt evolution: each question tells the model what earlier texts did to the detector, and its
texts start from a candidate that no other one dominates. Source: Agrawal et al., "GEPA: Reflective Prompt
Evolution Can Outperform Reinforcement Learning", 2025.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from dsmoe_core.errors import ClassBookError, LanguageModelError
from prompts.class_book import ClassBook
from prompts.contrast_prompt import TellingApart, pair_messages
from prompts.llm import CountingModel, LanguageModel, Message, Reply, Usage, ask
from prompts.refinement import Candidate, Evaluator, Refinement, Spent, worded


@dataclass(frozen=True, slots=True)
class Budget:
    """When a refinement stops, over all its runs, whichever comes first.

    It is looked at before each question and each repeat of one, so that the last may go beyond it: by the
    tokens and time of one reply, or of two where a model ends within its thoughts (see OpenAIModel.reply).

    Attributes:
        rounds: in each of which every pair has its turn.
        calls, tokens, seconds: see ``Spent``.
    """

    rounds: int = 3
    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None

    def over(self, spent: Spent) -> str | None:
        """Which of calls, tokens and time is used up; None while all last."""
        if self.calls is not None and spent.calls >= self.calls:
            return f"the budget of {self.calls} calls is used up"
        if self.tokens is not None and spent.tokens >= self.tokens:
            return f"the budget of {self.tokens:,} tokens is used up"
        if self.seconds is not None and spent.seconds >= self.seconds:
            return f"the budget of {self.seconds / 60:g} minutes is used up"
        return None


class _BudgetSpentError(Exception):
    """Leads out of a question that has no more calls."""


class _Metered:
    """The model, with what it costs, and no question let through that the budget does not have."""

    def __init__(
        self, model: CountingModel, budget: Budget, before: Spent, clock: Callable[[], float]
    ) -> None:
        self.name = model.name
        self._model = model
        self._budget = budget
        self._before = before
        self._began = model.usage
        self._clock = clock
        self._since = clock() - before.seconds

    @property
    def settings(self) -> Mapping[str, Any]:
        return self._model.settings

    @property
    def usage(self) -> Usage:
        return self._model.usage

    @property
    def spent(self) -> Spent:
        before, began, now = self._before, self._began, self.usage
        return Spent(
            calls=before.calls + now.asked - began.asked,
            tokens=before.tokens + now.tokens - began.tokens,
            seconds=self._clock() - self._since,
        )

    def reply(self, messages: Sequence[Message], shape: type[BaseModel]) -> Reply:
        if why := self._budget.over(self.spent):
            raise _BudgetSpentError(why)
        return self._model.reply(messages, shape)


def refine(
    state: Refinement,
    start: ClassBook,
    model: CountingModel,
    evaluator: Evaluator,
    *,
    budget: Budget,
    cached: Callable[[CountingModel], LanguageModel] = lambda model: model,
    known: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    keep: Callable[[Refinement], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Refinement:
    """Go on with a refinement until the budget is used up; the start's book stays as it is.

    Args:
        start: the book that the state is of.
        model: as it is, without a cache around it: whatever a cache asks it again counts, too.
        cached: puts a cache around the model that it is given.
        known: per class, lines of what is measured and noted of it.
        seed: of the draws of parents.
        keep: called with the state after every candidate, and before an error leaves.

    Raises:
        LanguageModelError: the server failed, or gave no valid answer; what is known was kept.
        ModelError, ClassBookError: see Evaluator.
    """
    metered = _Metered(model, budget, state.spent, clock)
    asked = cached(metered)
    try:
        if not state.candidates:
            first = Candidate(id=0, scores=evaluator.score(start))
            state = state.model_copy(update={"candidates": (first,)})
            keep(state)
        while (why := _over(budget, state, metered.spent)) is None:
            candidate = _candidate(state, start, asked, evaluator, known or {}, seed)
            candidates = (*state.candidates, candidate)
            state = state.model_copy(update={"candidates": candidates, "spent": metered.spent, "stopped": ""})
            keep(state)
    except _BudgetSpentError as spent:
        why = str(spent)
    except BaseException as error:  # Ctrl-C too: what was asked is counted
        said = error.problem if isinstance(error, LanguageModelError) else "it was interrupted"
        keep(state.model_copy(update={"spent": metered.spent, "stopped": said}))
        raise
    state = state.model_copy(update={"spent": metered.spent, "stopped": why})
    keep(state)
    return state


def _over(budget: Budget, state: Refinement, spent: Spent) -> str | None:
    if state.rounds >= budget.rounds:
        return f"all {budget.rounds} rounds are done"
    return budget.over(spent)


def _candidate(
    state: Refinement,
    start: ClassBook,
    model: LanguageModel,
    evaluator: Evaluator,
    known: Mapping[str, Sequence[str]],
    seed: int,
) -> Candidate:
    """Ask for texts for the pair whose turn it is, and score them.

    Raises:
        LanguageModelError: as above, or a class book cannot hold the texts.
    """
    number = len(state.candidates)
    pair = state.pairs[(number - 1) % len(state.pairs)]
    parent = state.parent(seed)
    answer = ask(model, pair_messages(pair, worded(start, parent.texts), state, known), TellingApart)
    new = {pair.first: answer.first.by(model.name), pair.second: answer.second.by(model.name)}
    texts = {**parent.texts, **new}
    try:
        book = worded(start, texts)
    except ClassBookError as error:
        raise LanguageModelError(
            f"model {model.name} wrote for {pair.title} what a class book cannot hold: {error.problem}",
            "Ask anew with --fresh, or write this text yourself; what is known is kept.",
        ) from None
    same = next((c for c in state.candidates if c.texts == texts), None)
    scores = evaluator.score(book) if same is None else same.scores
    return Candidate(
        id=number, parent=parent.id, pair=pair.title, difference=answer.difference, texts=texts, scores=scores
    )
