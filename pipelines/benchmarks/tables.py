"""Tables of README and docs, rendered from benchmarks/results/NAME.json and from nowhere else.

A document marks the place with ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->``; what is between
them is replaced. ``NAME_errors`` and ``NAME_classes`` are the kinds of error and the classes of the
trainings in NAME.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from dsmoe_core.atomic import atomic_write
from dsmoe_core.errors import FormatError
from dsmoe_core.evaluation.seed_stats import mean_over_seeds
from pipelines.benchmarks.results import read_result

GOAL_MS, GOAL_PER_S = 3, 2000
"""Of the whole detector on a GPU: one image, and many at once."""
_MARK = re.compile(
    r"(<!-- results:(?P<name>[a-z_]+) -->\n)(?P<body>.*?)(<!-- /results:(?P=name) -->)", re.DOTALL
)


def render(text: str, results: Path) -> str:
    """The same document with every marked table rendered anew.

    Raises:
        FormatError: a mark has no end, no result file, or no table is known for it.
    """
    opened = len(re.findall(r"<!-- results:[a-z_]+ -->", text))
    if opened != len(_MARK.findall(text)):
        raise FormatError(
            "a `<!-- results:NAME -->` has no `<!-- /results:NAME -->` after it", "Add the closing mark."
        )

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        file, shown = next(
            ((name.removesuffix(view), shown) for view, shown in _VIEWS.items() if name.endswith(view)),
            (name, _TABLES.get(name)),
        )
        if shown is None or file not in _TABLES:
            raise FormatError(
                f"no table is known for results:{name}; there are {', '.join(_TABLES)}", "Correct the mark."
            )
        found = read_result(results / f"{file}.json")
        return f"{match[1]}{shown(found)}\n{_origin(found)}\n{match[4]}"

    return _MARK.sub(table, text)


def update(document: Path, results: Path) -> bool:
    """Render a document's tables in place; says whether it changed."""
    before = document.read_text(encoding="utf-8")
    after = render(before, results)
    if after != before:
        atomic_write(document, after)
    return after != before


def _origin(found: Mapping[str, Any]) -> str:
    """Every command that wrote figures of the file, the last one with the machine."""
    machine = found["machine"]
    cores = f"{machine['cores']} core{'s' * (machine['cores'] != 1)}"
    where = f"{machine['cpu']}, {cores}, {machine.get('gpu') or 'no GPU'}"
    others = dict.fromkeys(_run(one) for one in found.get("origins", {}).values())
    return "\n" + "; ".join([*others, _run(found, where)]) + "."


def _run(one: Mapping[str, Any], where: str | None = None) -> str:
    commit = f"commit {one['commit'][:10]}" if one.get("commit") else None
    return ", ".join(filter(None, (f"`{one['command']}`", one["date"], where, commit)))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column to the left, the others to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(value: float | None) -> str:
    """A share as whole percent; a dash where there is none."""
    return "-" if value is None else f"{value:.0%}"


def score(value: float | None) -> str:
    """A score with three digits; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def _demo(found: Mapping[str, Any]) -> str:
    head = ("round", "pictures", "boxes", "accepted", "moved", "relabelled", "deleted", "added", "mAP@.5")
    rows = [
        [
            str(row["round"]),
            str(row["pictures"]),
            str(row["boxes"]),
            *(percent(row.get(name)) for name in head[3:8]),
            score(row.get("map50")),
            score(row.get("map")),
            row.get("reason", "-"),
        ]
        for row in found["rounds"]
    ]
    title = f"{found['data']}, {found['minutes']:.1f} minutes, annotator: {found['annotator']}\n\n"
    return title + markdown((*head, "mAP@.5:.95", "promoted?"), rows)


def _experts(found: Mapping[str, Any]) -> str:
    """The paper's Table 5; the last column is against k = 1."""
    first = found["rows"][0]
    rows = [
        [
            str(row["k"]),
            f"{row['ms']:.0f} ({row['ms_quartiles'][0]:.0f} to {row['ms_quartiles'][1]:.0f})",
            f"{row['gflops']:.1f}",
            f"{row['params_m']:.2f}",
            f"{row['ms'] / first['ms']:.2f}",
        ]
        for row in found["rows"]
    ]
    title = (
        f"{found['size']}, {found['image_px']} px, batch {found['batch']}, {found['experts']} experts, "
        f"{found['threads']} threads; median (quartiles) of {found['repeats']}\n\n"
    )
    head = ("active experts k", "ms", "GFLOPs", "weights in use, millions", "time / time at k = 1")
    return title + markdown(head, rows)


def _latency(found: Mapping[str, Any]) -> str:
    """Every runtime at one image and at its best batch; then what each finds, where that was measured."""
    rows = []
    for row in (row for row in found["rows"] if row["batch"] == 1):
        same = [r for r in found["rows"] if all(r[k] == row[k] for k in ("device", "runtime", "dtype"))]
        best = max(same, key=lambda r: float(r["pictures_per_s"]))
        rows.append(
            [
                f"{row['runtime']}, {row['dtype']}, {row['device']}",
                f"{_ms(row['ms'])} ({_ms(row['ms_quartiles'][0])} to {_ms(row['ms_quartiles'][1])})",
                f"{row['ratio_to_eager']:.2f}",
                f"{best['pictures_per_s']:.1f} ({best['batch']})",
            ]
        )
    after, encoder = found["after_encoder_ms"], found["encoder_ms"]
    title = (
        f"{found['size']}, {found['image_px']} px, {found['threads']} threads; median (quartiles) of "
        f"{found['rounds']}. In eager fp32 the encoder takes {encoder:.0f} ms and everything after it "
        f"{after:.0f} ms, {after / encoder:.0%} of that.\n\n"
    )
    head = ("runtime", "ms, one image", "time / eager fp32", "images a second (batch)")
    parts = [title + markdown(head, rows), *_on_gpu(found)]
    if "left_out" in found:
        parts.append(
            "Left out: " + "; ".join(f"{who}: {why}" for who, why in found["left_out"].items()) + "."
        )
    return "\n\n".join(parts) + (_detections(found["findings"]) if "findings" in found else "")


def _ms(value: float) -> str:
    """Milliseconds; with two digits more where a GPU takes a few."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"


def _on_gpu(found: Mapping[str, Any]) -> list[str]:
    """Against the goals and what the GPU could do, where one was measured."""
    rows = [row for row in found["rows"] if row["device"] == "cuda"]
    if not rows:
        return []
    quickest = min(row["ms"] for row in rows if row["batch"] == 1)
    most = max(row["pictures_per_s"] for row in rows)
    return [
        f"On the GPU one image takes {_ms(quickest)} ms at best (goal: {GOAL_MS}), and it looks at "
        f"{most:,.0f} images a second (goal: {GOAL_PER_S:,}): {found['share_of_peak']:.1%} of the "
        f"{found['peak_tflops']:.0f} TFLOP/s that a large bf16 product reaches there."
    ]


def _detections(found: Mapping[str, Any]) -> str:
    first = found["rows"][0]
    rows = [
        [
            f"{row['runtime']}, {row['dtype']}",
            str(row["findings"]),
            f"{row['matched']:.2%}",
            f"{row['worst_iou']:.4f}",
            f"{row['worst_score']:.4f}",
            score(row["map50"]),
            f"{row['map50'] - first['map50']:+.3f}",
        ]
        for row in found["rows"]
    ]
    title = f"\n\nThe same detections? {found['data']}, {found['pictures']} images, {found['size']}, " + (
        f"{found['image_px']} px; matched: IoU at least 0.99 and score within 0.01.\n\n"
    )
    head = ("runtime", "findings", "matched", "worst IoU", "worst score", "mAP@.5", "against eager fp32")
    return title + markdown(head, rows)


def _studio(found: Mapping[str, Any]) -> str:
    """What people wait for, and how many at once it bears."""
    people = found["ml_backend"]
    rows = [
        [f"{found['pictures']:,} images, {found['boxes']:,} boxes pushed", f"{found['push_s']:.2f} s"],
        ["taken back", f"{found['harvest_s']:.2f} s"],
        ["one image pushed by itself", f"{found['one_by_one_ms']:.0f} ms"],
        ["memory for 20,000 against 1,000", f"{found['peak_mb_20000'] / found['peak_mb_1000']:.2f}"],
        ["a click on a new image, 95th percentile", f"{found['click_ms_p95']:.0f} ms"],
        ["a second click on it", f"{found['click_again_ms_p95']:.0f} ms"],
        [
            f"{people['annotators']} annotators at once for {people['seconds']:.0f} s: 95th percentile",
            f"{people['p95_ms']:.0f} ms",
        ],
        ["their requests, and those that failed", f"{people['requests']:,}, {people['errors']}"],
        [
            "memory of the back end, after ten seconds and in the end",
            f"{people['rss_mb_settled']:.0f} MB, {people['rss_mb_end']:.0f} MB",
        ],
    ]
    model = found["model"]
    title = f"{model['size']}, {model['image_px']} px, both servers on this machine\n\n"
    return title + markdown(("what", "figure"), rows)


def _trained(**keys: str) -> Callable[[Mapping[str, Any]], str]:
    """Tables of a file whose rows are trainings; ``keys`` are the rows' and what they are called."""

    def render(found: Mapping[str, Any]) -> str:
        rows = found.get("rows", ())
        if not rows:
            return "Nothing was trained yet."
        seeds = max(len(row["seeds"]) for row in rows)
        spread = ", mean [95 % interval over seeds]" if seeds > 1 else ""
        head = ("data", *keys.values(), "epochs", "minutes", "mAP@.5", "mAP@.5:.95", "precision", "recall")
        lines = [
            [
                row["data"],
                *(str(row.get(key, "-")) for key in keys),
                *(f"{row[key]:.1f}" if key in row else "-" for key in ("epochs", "minutes")),
                *(_spread(row[key]) for key in ("map50", "map", "precision", "recall")),
            ]
            for row in rows
        ]
        title = f"Trained for {_budget(found['budget'])} each, {seeds} seed{'s' * (seeds > 1)}{spread}.\n\n"
        return title + markdown(head, lines) + _differences(found, seeds)

    return render


def _differences(found: Mapping[str, Any], seeds: int) -> str:
    lines = [_difference(test) for test in found.get("tests", ())]
    if not lines:
        return ""
    head = ("data", "what", "against", "mAP@.5:.95 [95 % interval]", "p", "over")
    alone = f"\n\n{_ONE_SEED}" if seeds == 1 else ""
    return f"\n\n{markdown(head, lines)}{alone}"


def _curve(found: Mapping[str, Any]) -> str:
    """mAP@.5 / mAP@.5:.95 of each model after so many minutes; the mean over its seeds."""
    rows = found.get("rows", ())
    if not rows:
        return "Nothing was trained yet."
    budgets = sorted({row["after"] for row in rows})
    lines: dict[tuple[str, str, str], dict[float, str]] = {}
    for row in rows:
        line = lines.setdefault((row["data"], str(row["labels"]), row["model"]), dict.fromkeys(budgets, "-"))
        line[row["after"]] = f"{score(fmean(row['map50']))} / {score(fmean(row['map']))}"
    seeds = max(len(row["seeds"]) for row in rows)
    head = ("data", "labels", "model", *(f"{budget:g} min" for budget in budgets))
    table = markdown(head, [[*who, *line.values()] for who, line in lines.items()])
    what = "mAP@.5 / mAP@.5:.95, trained for just that long"
    return f"{what}; {seeds} seed{'s' * (seeds > 1)}.\n\n{table}"


def _errors(found: Mapping[str, Any]) -> str:
    """What each kind of error costs each training; the mean over its seeds."""
    rows = [row for row in found.get("rows", ()) if row.get("errors")]
    if not rows:
        return "Nothing was trained yet."
    kinds = list(rows[0]["errors"])
    lines = [[row["data"], _who(row), *(score(fmean(row["errors"][kind])) for kind in kinds)] for row in rows]
    return "mAP@.5 that an error of each kind costs\n\n" + markdown(("data", "what", *kinds), lines)


def _classes(found: Mapping[str, Any]) -> str:
    """AP@.5 and recall of each class of each training; the mean over its seeds."""
    lines = [
        [row["data"], _who(row), label, *(score(fmean(figures[name])) for name in ("map50", "recall"))]
        for row in found.get("rows", ())
        for label, figures in row["classes"].items()
    ]
    if not lines:
        return "Nothing was trained yet."
    return "By class; recall at the best threshold\n\n" + markdown(
        ("data", "what", "class", "AP@.5", "recall"), lines
    )


def _who(row: Mapping[str, Any]) -> str:
    """What tells a row from the others of its file."""
    return str(next(row[key] for key in ("settings", "row", "words", "model") if key in row))


def _words(found: Mapping[str, Any]) -> str:
    """One model asked in several words, classes that it never saw, and a language model's valid answers."""
    parts = [_trained(words="asked in", trained="trained")(found)]
    if held := found.get("held_out_class"):
        said = ("right", "name", "random")
        lines = [
            [
                *(row["data"], row["class"], row["asked"]),
                *(_spread(row[words]) for words in said),
                _over_seeds(row["tests"]),
            ]
            for row in held
        ]
        head = ("data", "class", "asked", "right words", "bare name", "random words", "right less random, p")
        parts.append(
            f"A class that was not trained on, AP@.5:.95 of it; trained for {_budget(held[0]['budget'])}.\n\n"
            + markdown(head, lines)
        )
    if "structured_n" in found:
        parts.append(
            f"Valid answers of the language model `{found['structured_model']}` to a JSON schema: "
            f"{found['structured_ok']} of {found['structured_n']}."
        )
    return "\n\n".join(parts)


def _over_seeds(tests: Sequence[Mapping[str, Any]]) -> str:
    """Right less random words over seeds; over images, where there is one seed."""
    against = {test["over"]: test for test in tests if test["against"] == "random"}
    test = against.get("seeds", against.get("pictures"))
    return "-" if test is None else f"{_gain(test)}, {test['p']:.3g}"


def _difference(test: Mapping[str, Any]) -> list[str]:
    """A row of ``tests``; what is compared is named by all its keys but the figures and ``against``."""
    figures = ("data", "against", "over", "delta_map", "ci95", "p")
    what = " ".join(str(value) for key, value in test.items() if key not in figures)
    return [test["data"], what, str(test["against"]), _gain(test), f"{test['p']:.3g}", test["over"]]


def _gain(test: Mapping[str, Any]) -> str:
    low, high = test["ci95"]
    return f"{test['delta_map']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _budget(budget: Mapping[str, Any]) -> str:
    ((unit, amount),) = budget.items()
    return f"{amount:g} {unit}"


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return score(values[0])
    mean, (low, high) = mean_over_seeds(values)
    return f"{score(mean)} [{max(low, 0.0):.3f}, {min(high, 1.0):.3f}]"


_ONE_SEED = "Over images: these trainings on other images. What another seed would do is not in it."

_TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "demo": _demo,
    "experts": _experts,
    "latency": _latency,
    "studio": _studio,
    "accuracy": _trained(model="model", image_px="px", start="start", labels="labels"),
    "few_labels": _trained(model="model", image_px="px", start="start", labels="labels"),
    "curve": _curve,
    "ablation": _trained(row="row", size="size", image_px="px"),
    **dict.fromkeys(
        ("warmstart", "warmstart_boards"), _trained(labels="labels", start="start", model="model")
    ),
    **dict.fromkeys(
        [f"settings{of}" for of in ("", "_all", "_labels", "_losses", "_rows", "_tiles")],
        _trained(settings="settings", size="size", image_px="px", labels="labels"),
    ),
    "words": _words,
}

_VIEWS = {"_errors": _errors, "_classes": _classes}
"""Of any file of trainings, by the end of the mark's name."""
