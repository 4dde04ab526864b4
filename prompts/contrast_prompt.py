"""Prompt of a refinement: describe two confused classes so that the detector can distinguish them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from dsmoe_core.config import Frozen
from prompts.class_book import ClassBook
from prompts.draft_prompt import Sentence
from prompts.llm import Message
from prompts.refinement import Candidate, CandidateDescription, ConfusedPair, Refinement, TextScores

MAX_ATTEMPTS = 4
"""Earlier attempts in a prompt; a small model loses track of the task among more."""

_ROLE = (
    "You write the class descriptions by which a detector of defects on industrial parts tells classes "
    "apart. It reads nothing but the descriptions. Say only what can be seen: shape, edge, texture, "
    "orientation, size, contrast, place. No causes, no consequences, no measurements that were not given to "
    "you. Answer in English, as one JSON object of the given schema."
)


class GeneratedDescription(Frozen):
    """Description of one class in a model's answer."""

    description: Sentence
    paraphrases: tuple[Sentence, ...] = Field(min_length=3, max_length=6)

    def as_candidate(self, author: str) -> CandidateDescription:
        """The description as part of a candidate, without duplicate paraphrases."""
        paraphrases = tuple(dict.fromkeys(self.paraphrases))
        return CandidateDescription(description=self.description, paraphrases=paraphrases, author=author)


class PairAnswer(Frozen):
    """A model's answer for a confused pair.

    Attributes:
        difference: what is visible in the first class and not in the second.
    """

    difference: Sentence
    first: GeneratedDescription
    second: GeneratedDescription


def pair_messages(
    pair: ConfusedPair, book: ClassBook, state: Refinement, context: Mapping[str, Sequence[str]]
) -> list[Message]:
    """Prompt for one pair, with the facts and notes of both classes and the effect of earlier attempts.

    Args:
        book: class book with the parent candidate's descriptions, which are to be improved.
        context: per class, lines with measured facts and notes of experts.
    """
    first, second = book.entry(pair.first), book.entry(pair.second)
    lines = [f"Two classes are confused: first {first.name!r}, second {second.name!r}. {_counts(pair)}"]
    for position, entry in (("First", first), ("Second", second)):
        also = f", also called {', '.join(entry.aliases)}" if entry.aliases else ""
        lines.append(f"{position}, {entry.name!r}{also}: {entry.description}")
        lines += [f"- {line}" for line in context.get(entry.name, ())]
    others = [c for c in book.classes if c.name not in (first.name, second.name)]
    if others:
        lines.append("Neither may be described so that it fits one of the other classes:")
        lines += [f"- {c.name}: {c.description}" for c in others]
    attempts = _selected_attempts(pair, state)
    if attempts:
        lines.append("Tried before, with what the detector then did (more is better):")
        lines += [f"- {_attempt_line(candidate, state, pair)}" for candidate in attempts]
        lines.append("Keep what helped, leave what harmed, and say something that was not tried yet.")
    lines.append(
        "Say first what tells the two apart in an image. Then give for each a description of 15 to 40 words "
        "in which this difference stands first, and 4 paraphrases of it."
    )
    return [Message("system", _ROLE), Message("user", "\n".join(lines))]


def _counts(pair: ConfusedPair) -> str:
    sentences = [
        f"The detector called {pair.detector[0]} boxes that are {pair.first!r} {pair.second!r}, "
        f"and {pair.detector[1]} that are {pair.second!r} {pair.first!r}."
    ]
    directions = ((pair.first, pair.second), (pair.second, pair.first))
    for (predicted, corrected), count in zip(directions, pair.annotators, strict=True):
        if count:
            sentences.append(f"Annotators corrected {predicted!r} to {corrected!r} {count} times.")
    return " ".join(sentences)


def _selected_attempts(pair: ConfusedPair, state: Refinement) -> list[Candidate]:
    """The best and the latest candidates for this pair, half of MAX_ATTEMPTS each, by id."""
    own = [c for c in state.candidates if c.pair == pair.title]
    best = sorted(own, key=lambda c: -c.scores.total)[: MAX_ATTEMPTS // 2]
    latest = [c for c in own if c not in best][-(MAX_ATTEMPTS - len(best)) :]
    return sorted([*best, *latest], key=lambda c: c.id)


def _attempt_line(candidate: Candidate, state: Refinement, pair: ConfusedPair) -> str:
    """Descriptions of a candidate, and its scores compared with those of its parent."""
    before = state.candidates[candidate.parent or 0].scores
    texts = "; ".join(
        f"{name!r}: {candidate.descriptions[name].description}" for name in (pair.first, pair.second)
    )
    effect = _effect(candidate.scores, before, pair)
    return f"{texts} Difference it saw: {candidate.difference} Effect: {effect}"


def _effect(after: TextScores, before: TextScores, pair: ConfusedPair) -> str:
    title = pair.title
    changes = [_change("margin between the two", before.pair_margins[title], after.pair_margins[title])]
    changes += [
        _change(f"precision of {name!r}", before.class_ap[name], after.class_ap[name])
        for name in (pair.first, pair.second)
        if name in after.class_ap
    ]
    others = [n for n in after.class_ap if n not in (pair.first, pair.second)]
    if others:
        means = [sum(s.class_ap[n] for n in others) / len(others) for s in (before, after)]
        changes.append(_change("precision of the others", *means))
    return ", ".join(changes) + "."


def _change(metric: str, before: float, after: float) -> str:
    verdict = "as before" if round(after - before, 3) == 0 else "better" if after > before else "worse"
    return f"{metric} {before:.3f} -> {after:.3f} ({verdict})"
