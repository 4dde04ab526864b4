"""Do the words matter? One trained model, asked in right, bare, random and swapped words.

The *same* model, because that is the question: does what it finds depend on what it is told? Whether it would
have learned as well from other words is another one, and has rows of its own (``trained: anew``): a model
that reads any fixed vector as a code for a class falls in the former and not in the latter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dsmoe_core.digest import content_id
from dsmoe_core.schema import Vocabulary
from pipelines.benchmarks.comparison import dataset as lessons
from pipelines.benchmarks.comparison.dsmoe_model import DsmoeContestant
from pipelines.benchmarks.comparison.protocol import Budget, Lesson
from pipelines.benchmarks.comparison.rows import differences, row
from pipelines.benchmarks.comparison.run_store import Bouts, Result
from pipelines.benchmarks.comparison.sweep import Report
from prompts.text_controls import TEXT_CONTROLS

ONCE, ANEW = "once", "anew"
Key = tuple[str, str, str]
"""Data set, ``trained``, words."""


def run(
    make: Callable[[Vocabulary | None], DsmoeContestant],
    data: Sequence[Path],
    budget: Budget,
    seeds: Sequence[int],
    bouts: Bouts,
    report: Report,
    *,
    anew: bool,
    along: Sequence[Path] = (),
) -> None:
    """Train with the right words, once a seed, and ask in all of them; then train anew in each, if wanted.

    Args:
        make: a contestant that reads this vocabulary; the lesson's own for None.
        anew: also train with each of the other words.
        along: other data sets to train on along with each, in their right words.

    Raises:
        DataError, ModelError: as :func:`pipelines.benchmarks.comparison.sweep.run`.
        SettingsError: a set is to be learned along with itself.
    """
    results: dict[Key, list[Result]] = {}
    progress = bouts.told
    with lessons.read_along(data, along, progress) as read:
        how = make(None).how(read[0])
        for seed in seeds:
            for lesson in read:
                progress.line(f"{lesson.name}, seed {seed}")
                contestant = make(None)
                trained = bouts.fight(contestant, lesson, budget, seed)
                for words in TEXT_CONTROLS:
                    _note(
                        results,
                        (lesson.name, ONCE, words),
                        _asked(contestant, trained, words, lesson, bouts),
                        bouts,
                    )
                for words in [w for w in TEXT_CONTROLS if anew and w != "right"]:
                    other = make(in_words(words, lesson, seed))
                    _note(
                        results, (lesson.name, ANEW, words), bouts.fight(other, lesson, budget, seed), bouts
                    )
                report({"budget": budget.plain, **_measured(results, how)}, seeds[: seeds.index(seed) + 1])


def in_words(words: str, lesson: Lesson, seed: int) -> Vocabulary:
    """The lesson's vocabulary in these words (``prompts.text_controls.TEXT_CONTROLS``)."""
    boxes = Counter(a.label for one in lesson.val for a in one.annotations)
    return TEXT_CONTROLS[words](lesson.vocabulary, boxes, seed)


def _asked(contestant: DsmoeContestant, trained: Result, words: str, lesson: Lesson, bouts: Bouts) -> Result:
    """What the trained model finds when it is asked in these words."""
    if words == "right":
        return trained
    vocabulary = in_words(words, lesson, trained.seed)
    images = [one.image for one in lesson.val]
    return bouts.again(
        trained,
        f"words-{words}-{content_id(vocabulary.to_dict())}",
        lambda folder: contestant.look(folder / "model", vocabulary, images, bouts.told),
        lesson,
    )


def _note(results: dict[Key, list[Result]], key: Key, result: Result, bouts: Bouts) -> None:
    results.setdefault(key, []).append(result)
    shown = result.total
    bouts.told.line(
        f"  {key[2]} words, trained {key[1]}: mAP@.5 {shown['map50']:.3f}, mAP@.5:.95 {shown['map']:.3f}"
    )


def _measured(results: dict[Key, list[Result]], how: dict[str, Any]) -> dict[str, Any]:
    rows, compared = [], []
    right_minus_random: dict[str, Any] = {}
    for (name, trained, words), known in results.items():
        rows.append({"data": name, "words": words, "trained": trained, **how, **row(known)})
        if words == "right":
            continue
        found = differences(results[name, ONCE, "right"], known)
        compared += [
            {"data": name, "words": "right", "against": words, "trained": trained, **one} for one in found
        ]
        if (words, trained) == ("random", ONCE) and found:
            first = found[0]
            right_minus_random[name] = {"delta": first["delta_map"], "ci95": first["ci95"]}
    return {"rows": rows, "tests": compared, "right_minus_random": right_minus_random}
