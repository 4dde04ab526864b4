"""Refines the descriptions of confused classes: a language model writes them, the detector scores them.

Reflective prompt evolution: each prompt lists the effect of earlier descriptions on the detector, and starts
from a candidate of the Pareto front. Source: Agrawal et al., "GEPA: Reflective Prompt Evolution Can
Outperform Reinforcement Learning", 2025.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from dsmoe_core.errors import ClassBookError, LanguageModelError
from prompts.class_book import ClassBook
from prompts.contrast_prompt import PairAnswer, pair_messages
from prompts.llm import CountingModel, LanguageModel, Message, Reply, Usage, generate_structured
from prompts.refinement import Candidate, Evaluator, Refinement, RefinementCost, apply_descriptions


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of a refinement over all its runs; the first limit that is reached stops it.

    The limits are checked before each request to the model. The last request may exceed them: by the tokens
    and time of one reply, or of two if a model ends within its reasoning (see OpenAIModel.reply).

    Attributes:
        rounds: in each round every pair gets one candidate.
        calls, tokens, seconds: see ``RefinementCost``; None: no limit.
    """

    rounds: int = 3
    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None

    def exhausted(self, cost: RefinementCost) -> str | None:
        """Which of the limits on calls, tokens and time is reached; None if none is."""
        if self.calls is not None and cost.calls >= self.calls:
            return f"the budget of {self.calls} calls is used up"
        if self.tokens is not None and cost.tokens >= self.tokens:
            return f"the budget of {self.tokens:,} tokens is used up"
        if self.seconds is not None and cost.seconds >= self.seconds:
            return f"the budget of {self.seconds / 60:g} minutes is used up"
        return None


class _BudgetExhaustedError(Exception):
    """Stops a structured request whose next attempt would exceed the budget."""


class _MeteredModel:
    """Wraps the model: adds up its cost, and refuses requests once the budget is used up."""

    def __init__(
        self, model: CountingModel, budget: Budget, earlier: RefinementCost, clock: Callable[[], float]
    ) -> None:
        self.name = model.name
        self._model = model
        self._budget = budget
        self._earlier = earlier
        self._usage_at_start = model.usage
        self._clock = clock
        self._started = clock() - earlier.seconds

    @property
    def settings(self) -> Mapping[str, Any]:
        return self._model.settings

    @property
    def usage(self) -> Usage:
        return self._model.usage

    @property
    def cost(self) -> RefinementCost:
        """Cost of this run and of the earlier ones."""
        start, now = self._usage_at_start, self.usage
        return RefinementCost(
            calls=self._earlier.calls + now.replies - start.replies,
            tokens=self._earlier.tokens + now.tokens - start.tokens,
            seconds=self._clock() - self._started,
        )

    def reply(self, messages: Sequence[Message], schema: type[BaseModel]) -> Reply:
        if reason := self._budget.exhausted(self.cost):
            raise _BudgetExhaustedError(reason)
        return self._model.reply(messages, schema)


def refine(
    state: Refinement,
    original: ClassBook,
    model: CountingModel,
    evaluator: Evaluator,
    *,
    budget: Budget,
    add_cache: Callable[[CountingModel], LanguageModel] = lambda model: model,
    context: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    save: Callable[[Refinement], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Refinement:
    """Continue a refinement until its budget is used up; the original class book is not changed.

    Args:
        original: the class book of version ``state.book``.
        model: the model without a cache, so that every request to it is counted.
        add_cache: wraps a model with a cache.
        context: per class, lines for the prompt: measured facts and notes of experts.
        seed: of the sampling of parents.
        save: called with the state after every candidate, and before an error is raised.

    Raises:
        LanguageModelError: the server failed, or gave no valid answer; the state was saved.
        ModelError, ClassBookError: see Evaluator.
    """
    metered = _MeteredModel(model, budget, state.cost, clock)
    cached = add_cache(metered)
    try:
        if not state.candidates:
            unchanged = Candidate(id=0, scores=evaluator.score(original))
            state = state.model_copy(update={"candidates": (unchanged,)})
            save(state)
        while (reason := _stop_reason(budget, state, metered.cost)) is None:
            candidate = _next_candidate(state, original, cached, evaluator, context or {}, seed)
            candidates = (*state.candidates, candidate)
            state = state.model_copy(
                update={"candidates": candidates, "cost": metered.cost, "stop_reason": ""}
            )
            save(state)
    except _BudgetExhaustedError as exhausted:
        reason = str(exhausted)
    except BaseException as error:  # Ctrl-C too: the cost so far is saved
        problem = error.problem if isinstance(error, LanguageModelError) else "it was interrupted"
        save(state.model_copy(update={"cost": metered.cost, "stop_reason": problem}))
        raise
    state = state.model_copy(update={"cost": metered.cost, "stop_reason": reason})
    save(state)
    return state


def _stop_reason(budget: Budget, state: Refinement, cost: RefinementCost) -> str | None:
    if state.rounds >= budget.rounds:
        return f"all {budget.rounds} rounds are done"
    return budget.exhausted(cost)


def _next_candidate(
    state: Refinement,
    original: ClassBook,
    model: LanguageModel,
    evaluator: Evaluator,
    context: Mapping[str, Sequence[str]],
    seed: int,
) -> Candidate:
    """Generate descriptions for the next pair, and score them.

    Raises:
        LanguageModelError: see ``refine``; or the descriptions are not valid in a class book.
    """
    number = len(state.candidates)
    pair = state.pairs[(number - 1) % len(state.pairs)]
    parent = state.sample_parent(seed)
    messages = pair_messages(pair, apply_descriptions(original, parent.descriptions), state, context)
    answer = generate_structured(model, messages, PairAnswer)
    descriptions = {
        **parent.descriptions,
        pair.first: answer.first.as_candidate(model.name),
        pair.second: answer.second.as_candidate(model.name),
    }
    try:
        book = apply_descriptions(original, descriptions)
    except ClassBookError as error:
        raise LanguageModelError(
            f"model {model.name} wrote texts for {pair.title} that are not valid in a class book: "
            f"{error.problem}",
            "Request new ones with --fresh, or write them yourself; the candidates so far are saved.",
        ) from None
    same = next((c for c in state.candidates if c.descriptions == descriptions), None)
    return Candidate(
        id=number,
        parent=parent.id,
        pair=pair.title,
        difference=answer.difference,
        descriptions=descriptions,
        scores=evaluator.score(book) if same is None else same.scores,
    )
