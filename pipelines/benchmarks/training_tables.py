"""Tables of result files whose rows are trainings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from dsmoe_core.plain_text import escape_markdown, markdown_code
from pipelines.benchmarks.markdown import markdown_table, score, score_over_seeds

NO_TRAINING = "No training yet."
ONE_SEED = "The intervals are over images, for these trainings. The variation between seeds is not included."
TEST_KEYS = ("data", "against", "over", "delta_map", "ci95", "p")
"""Keys of a test that do not identify the first of the two compared models."""
DISPLAY = {
    ("settings", "as it is"): "unchanged",
    ("against", "as it is"): "unchanged",
    ("over", "pictures"): "images",
    ("trained", "anew"): "per text",
    ("asked", "beside"): "all classes",
    ("asked", "alone"): "this class only",
}
"""Text of a table for key and value of a result file, where the value itself is not shown."""


def training_table(**columns: str) -> Callable[[Mapping[str, Any]], str]:
    """A function that renders the trainings and tests of a result file.

    Args:
        columns: key of a row, and the heading of its column.
    """

    def render(result: Mapping[str, Any]) -> str:
        rows = result.get("rows", ())
        if not rows:
            return NO_TRAINING
        seeds = _max_seeds(rows)
        spread = ", mean [95 % interval over seeds]" if seeds > 1 else ""
        peaks = any("peak_mb" in row for row in rows)
        effort = {"epochs": "epochs", "minutes": "minutes", **({"peak_mb": "peak MB"} if peaks else {})}
        metrics = ("mAP@.5", "mAP@.5:.95", "precision", "recall")
        head = ("data", *columns.values(), *effort.values(), *metrics)
        lines = [
            [
                escape_markdown(row["data"]),
                *(_display(key, row.get(key, "-")) for key in columns),
                *(_effort(row, key) for key in effort),
                *(score_over_seeds(row[key]) for key in ("map50", "map", "precision", "recall")),
            ]
            for row in rows
        ]
        title = f"Trained for {_budget(result['budget'])} each, {_count(seeds, 'seed')}{spread}."
        table = f"{title}{_inner_split(result)}\n\n{markdown_table(head, lines)}"
        return table + _selection(rows) + _tests(result, seeds)

    return render


def _effort(row: Mapping[str, Any], key: str) -> str:
    """Epochs, minutes, or the peak of the memory in whole MB."""
    return f"{row[key]:,.{0 if key == 'peak_mb' else 1}f}" if key in row else "-"


def curve_table(result: Mapping[str, Any]) -> str:
    """mAP@.5 / mAP@.5:.95 of each model by minutes of training; the mean over its seeds."""
    rows = result.get("rows", ())
    if not rows:
        return NO_TRAINING
    budgets = sorted({row["after"] for row in rows})
    lines: dict[tuple[str, ...], dict[float, str]] = {}
    for row in rows:
        keys = tuple(escape_markdown(str(row[key])) for key in ("data", "labels", "model"))
        line = lines.setdefault(keys, dict.fromkeys(budgets, "-"))
        line[row["after"]] = f"{score(fmean(row['map50']))} / {score(fmean(row['map']))}"
    head = ("data", "labels", "model", *(f"{budget:g} min" for budget in budgets))
    table = markdown_table(head, [[*keys, *line.values()] for keys, line in lines.items()])
    seeds = _count(_max_seeds(rows), "seed")
    return f"mAP@.5 / mAP@.5:.95, each budget with a training of its own; {seeds}.\n\n{table}"


def forgetting_table(result: Mapping[str, Any]) -> str:
    """mAP@.5 of the old and the new classes of each model, and the differences over seeds and images."""
    rows = result.get("rows", ())
    if not rows:
        return NO_TRAINING
    names = {"old_map50": "old classes", "new_map50": "new classes"}
    lines = [
        [
            escape_markdown(row["data"]),
            escape_markdown(row["model"]),
            *(_with_interval(row[k], row[f"{k}_ci95"]) for k in names),
        ]
        for row in rows
    ]
    table = markdown_table(("data", "model", *(f"mAP@.5, {name}" for name in names.values())), lines)
    differences = [
        [
            escape_markdown(test["data"]),
            names[test["of"]],
            _difference(test, "delta"),
            f"{test['p']:.3g}",
            _display("over", test["over"]),
        ]
        for test in result.get("tests", ())
        if test["of"] in names
    ]
    head = ("data", "distilled minus fine-tuned, mAP@.5", "difference [95 % interval]", "p", "over")
    tests = f"\n\n{markdown_table(head, differences)}" if differences else ""
    new = ", ".join(escape_markdown(name) for name in result["new"])
    seeds = _max_seeds(rows)
    title = (
        f"New classes: {new}. Each training: {result['budget']['images']:,} images seen of "
        f"{result['labels']:.0%} of the training images; {_count(seeds, 'seed')}."
    )
    notes = " ".join([ONE_SEED] * (seeds == 1) + resampling_note(result))
    return "\n\n".join(filter(None, (title, table + tests, notes)))


def error_table(result: Mapping[str, Any]) -> str:
    """Loss of mAP@.5 by kind of error for each training; the mean over its seeds."""
    rows = [row for row in result.get("rows", ()) if row.get("errors")]
    if not rows:
        return NO_TRAINING
    kinds = list(rows[0]["errors"])
    lines = [
        [escape_markdown(row["data"]), _row_name(row), *(score(fmean(row["errors"][kind])) for kind in kinds)]
        for row in rows
    ]
    head = ("data", "training", *kinds)
    return "Loss of mAP@.5 by kind of error\n\n" + markdown_table(head, lines)


def class_table(result: Mapping[str, Any]) -> str:
    """AP@.5 and recall of each class of each training; the mean over its seeds."""
    lines = [
        [
            escape_markdown(row["data"]),
            _row_name(row),
            escape_markdown(label),
            *(score(fmean(metrics[name])) for name in ("map50", "recall")),
        ]
        for row in result.get("rows", ())
        for label, metrics in row["classes"].items()
    ]
    if not lines:
        return NO_TRAINING
    head = ("data", "training", "class", "AP@.5", "recall")
    return "By class; recall at the best threshold\n\n" + markdown_table(head, lines)


def text_table(result: Mapping[str, Any]) -> str:
    """Text ablation, zero-shot detection, and valid replies of a language model."""
    parts = [training_table(words="text", trained="trained")(result)]
    if rows := result.get("held_out_class"):
        parts.append(_zero_shot_table(rows))
    if "structured_n" in result:
        model = markdown_code(result["structured_model"])
        parts.append(
            f"Replies of the language model {model} that are valid for the JSON "
            f"schema: {result['structured_ok']} of {result['structured_n']}."
        )
    return "\n\n".join(parts)


def _zero_shot_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [
            escape_markdown(row["data"]),
            escape_markdown(row["class"]),
            _display("asked", row["asked"]),
            *(score_over_seeds(row[text]) for text in ("right", "name", "random")),
            _right_minus_random(row["tests"]),
        ]
        for row in rows
    ]
    head = (
        "data",
        "held-out class",
        "evaluated with",
        "right text",
        "name only",
        "random text",
        "right minus random, p",
    )
    title = f"AP@.5:.95 of a class held out of the training; trained for {_budget(rows[0]['budget'])}.\n\n"
    return title + markdown_table(head, lines)


def _right_minus_random(tests: Sequence[Mapping[str, Any]]) -> str:
    """The test over seeds; over images if there is one seed."""
    by_kind = {test["over"]: test for test in tests if test["against"] == "random"}
    test = by_kind.get("seeds", by_kind.get("pictures"))
    return "-" if test is None else f"{_difference(test)}, {test['p']:.3g}"


def _tests(result: Mapping[str, Any], seeds: int) -> str:
    lines = [
        [
            escape_markdown(test["data"]),
            ", ".join(_display(key, value) for key, value in test.items() if key not in TEST_KEYS),
            _display("against", test["against"]),
            _difference(test),
            f"{test['p']:.3g}",
            _display("over", test["over"]),
        ]
        for test in result.get("tests", ())
    ]
    if not lines:
        return ""
    head = ("data", "training", "minus", "mAP@.5:.95 [95 % interval]", "p", "over")
    notes = ([ONE_SEED] if seeds == 1 else []) + resampling_note(result)
    return "\n\n".join(["", markdown_table(head, lines), *([" ".join(notes)] if notes else [])])


def resampling_note(result: Mapping[str, Any]) -> list[str]:
    """A sentence on the groups of the bootstrap; none if images were resampled."""
    return (
        [f"Whole groups of images, {markdown_code(result['by'])}, are resampled."] if "by" in result else []
    )


def _inner_split(result: Mapping[str, Any]) -> str:
    """A sentence on the inner split, if there is one."""
    if "inner" not in result:
        return ""
    share, by = result["inner"]["share"], result["inner"]["by"]
    part = f"{share:.0%} of the training images" + (f", whole groups {markdown_code(by)}" if by else "")
    evaluated = result.get("evaluated_on") == "inner"
    return f" {'Evaluated' if evaluated else 'Selected'} on {part}, which are not trained on."


def _selection(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was selected for each row, seed by seed."""
    lines = [
        [
            escape_markdown(row["data"]),
            _row_name(row),
            ", ".join(escape_markdown(str(one["model"])) for one in row["selected"]),
            ", ".join(f"{one[_unit(one)]:g} {_unit(one)}" for one in row["selected"]),
            score_over_seeds([one["inner_map"] for one in row["selected"]]),
            f"{sum(one['converged'] for one in row['selected'])} of {len(row['selected'])}",
        ]
        for row in rows
        if "selected" in row
    ]
    head = ("data", "training", "selected", "length", "mAP@.5:.95, inner split", "converged")
    return f"\n\n{markdown_table(head, lines)}" if lines else ""


def _unit(length: Mapping[str, Any]) -> str:
    return next(unit for unit in ("epochs", "minutes") if unit in length)


def _with_interval(values: Sequence[float], over_images: Sequence[Sequence[float] | None]) -> str:
    """A score with its 95 % interval over seeds; over images for one seed."""
    if len(values) > 1 or over_images[0] is None:
        return score_over_seeds(values)
    low, high = over_images[0]
    return f"{score(values[0])} [{low:.3f}, {high:.3f}]"


def _difference(test: Mapping[str, Any], key: str = "delta_map") -> str:
    low, high = test["ci95"]
    return f"{test[key]:+.3f} [{low:+.3f}, {high:+.3f}]"


def _display(key: str, value: Any) -> str:
    return DISPLAY.get((key, value), escape_markdown(str(value)))


def _row_name(row: Mapping[str, Any]) -> str:
    """The value that distinguishes a row from the other rows of its file."""
    key = next(key for key in ("settings", "row", "words", "model") if key in row)
    return _display(key, row[key])


def _budget(budget: Mapping[str, Any]) -> str:
    if "converge" in budget:
        first = budget["epochs"]
        return (
            f"{first}, {2 * first}, {4 * first}, ... up to {budget['max_epochs']} epochs until "
            f"{_count(budget['converge'], 'length')} in a row did not improve the mAP@.5:.95,"
        )
    ((unit, amount),) = budget.items()
    return f"{amount:g} {unit}"


def _max_seeds(rows: Sequence[Mapping[str, Any]]) -> int:
    return max(len(row["seeds"]) for row in rows)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
