"""The question that refines: two classes that are confused, and texts that tell them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from dsmoe_core.config import Frozen
from prompts.class_book import ClassBook
from prompts.llm import Message
from prompts.refinement import Candidate, Confused, Refinement, Scores, Wording
from prompts.template import Sentence

MAX_ATTEMPTS = 4
"""Earlier attempts that are told: a small model loses sight of the question among more."""

_ROLE = (
    "You write the class descriptions by which a detector of defects on industrial parts tells classes "
    "apart. It reads nothing but the descriptions. Say only what can be seen: shape, edge, texture, "
    "orientation, size, contrast, place. No causes, no consequences, no measurements that were not given to "
    "you. Answer in English, as one JSON object of the given schema."
)


class NewText(Frozen):
    """One class in words."""

    description: Sentence
    paraphrases: tuple[Sentence, ...] = Field(min_length=3, max_length=6)

    def by(self, author: str) -> Wording:
        """As a candidate holds it."""
        said = tuple(dict.fromkeys(self.paraphrases))
        return Wording(description=self.description, paraphrases=said, author=author)


class TellingApart(Frozen):
    """A model's answer.

    Attributes:
        difference: what is seen in the first class and not in the second.
    """

    difference: Sentence
    first: NewText
    second: NewText


def pair_messages(
    pair: Confused, book: ClassBook, state: Refinement, known: Mapping[str, Sequence[str]]
) -> list[Message]:
    """The question for one pair, with what is measured and noted of both and what was tried before.

    Args:
        book: the parent's, whose texts are to be made better.
        known: per class, lines of what is known of it.
    """
    first, second = book.entry(pair.first), book.entry(pair.second)
    lines = [f"Two classes are confused: first {first.name!r}, second {second.name!r}. {_numbers(pair)}"]
    for place, entry in (("First", first), ("Second", second)):
        also = f", also called {', '.join(entry.aliases)}" if entry.aliases else ""
        lines.append(f"{place}, {entry.name!r}{also}: {entry.description}")
        lines += [f"- {line}" for line in known.get(entry.name, ())]
    others = [c for c in book.classes if c.name not in (first.name, second.name)]
    if others:
        lines.append("Neither may be described so that it fits one of the other classes:")
        lines += [f"- {c.name}: {c.description}" for c in others]
    tried = _attempts(pair, state)
    if tried:
        lines.append("Tried before, with what the detector then did (more is better):")
        lines += [f"- {_reflection(candidate, state, pair)}" for candidate in tried]
        lines.append("Keep what helped, leave what harmed, and say something that was not tried yet.")
    lines.append(
        "Say first what tells the two apart in an image. Then give for each a description of 15 to 40 words "
        "in which this difference stands first, and 4 paraphrases of it."
    )
    return [Message("system", _ROLE), Message("user", "\n".join(lines))]


def _numbers(pair: Confused) -> str:
    said = [
        f"The detector called {pair.found[0]} boxes that are {pair.first!r} {pair.second!r}, "
        f"and {pair.found[1]} that are {pair.second!r} {pair.first!r}."
    ]
    ways = ((pair.first, pair.second), (pair.second, pair.first))
    for (shown, right), times in zip(ways, pair.corrected, strict=True):
        if times:
            said.append(f"Annotators corrected {shown!r} to {right!r} {times} times.")
    return " ".join(said)


def _attempts(pair: Confused, state: Refinement) -> list[Candidate]:
    """Of the candidates for this pair the best half and the latest, in their order."""
    own = [c for c in state.candidates if c.pair == pair.title]
    best = sorted(own, key=lambda c: -c.scores.total)[: MAX_ATTEMPTS // 2]
    latest = [c for c in own if c not in best][-(MAX_ATTEMPTS - len(best)) :]
    return sorted([*best, *latest], key=lambda c: c.id)


def _reflection(candidate: Candidate, state: Refinement, pair: Confused) -> str:
    """What a candidate said, and what became of it against the one that it was made from."""
    before = state.candidates[candidate.parent or 0].scores
    texts = "; ".join(f"{name!r}: {candidate.texts[name].description}" for name in (pair.first, pair.second))
    return (
        f"{texts} Difference it saw: {candidate.difference} Effect: {_effect(candidate.scores, before, pair)}"
    )


def _effect(after: Scores, before: Scores, pair: Confused) -> str:
    changes = [_change("margin between the two", before.pairs[pair.title], after.pairs[pair.title])]
    changes += [
        _change(f"precision of {name!r}", before.classes[name], after.classes[name])
        for name in (pair.first, pair.second)
        if name in after.classes
    ]
    others = [n for n in after.classes if n not in (pair.first, pair.second)]
    if others:
        means = [sum(s.classes[n] for n in others) / len(others) for s in (before, after)]
        changes.append(_change("precision of the others", *means))
    return ", ".join(changes) + "."


def _change(what: str, before: float, after: float) -> str:
    word = "as before" if round(after - before, 3) == 0 else "better" if after > before else "worse"
    return f"{what} {before:.3f} -> {after:.3f} ({word})"
