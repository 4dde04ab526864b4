"""Text ablation: one trained model evaluated with right, name-only, random and swapped class descriptions.

The same model is evaluated with each text, so the benchmark measures whether its detections depend on the
text. A second measurement trains one model for each text (rows with ``trained`` = ``anew``). It shows whether
a model learns equally well from another text. A model that uses the text embeddings only as class indices
loses accuracy in the first measurement and not in the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dsmoe_core.digest import content_id
from dsmoe_core.schema import Vocabulary
from pipelines.benchmarks.comparison.dataset import load_datasets
from pipelines.benchmarks.comparison.dsmoe_model import DsmoeModel
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset, Budget
from pipelines.benchmarks.comparison.rows import comparison_rows, result_row
from pipelines.benchmarks.comparison.run_store import RunResult, RunStore
from pipelines.benchmarks.comparison.sweep import ReportCallback
from prompts.text_controls import TEXT_CONTROLS

ONE_TRAINING, TRAINING_PER_TEXT = "once", "anew"
"""Values of ``trained`` in result files."""
RowKey = tuple[str, str, str]
"""Data set, value of ``trained``, name of the text control."""


def run_text_ablation(
    build_model: Callable[[Vocabulary | None], DsmoeModel],
    data: Sequence[Path],
    budget: Budget,
    seeds: Sequence[int],
    store: RunStore,
    report: ReportCallback,
    *,
    retrain: bool,
    start: str = "scratch",
    extra: Sequence[Path] = (),
) -> None:
    """Train with the right descriptions and evaluate with each text control, for every seed and data set.

    Args:
        build_model: builds a model that reads the given vocabulary, or that of the data set for None.
        retrain: also train a model with each of the other texts.
        start: initial weights of the image encoder, for the result file.
        extra: other data sets to train on as well, with their right descriptions.

    Raises:
        DataError, ModelError: as :func:`pipelines.benchmarks.comparison.sweep.run_sweep`.
        SettingsError: a folder is in ``data`` and in ``extra``.
    """
    results: dict[RowKey, list[RunResult]] = {}

    def add(dataset: BenchmarkDataset, trained: str, control: str, result: RunResult) -> None:
        results.setdefault((dataset.name, trained, control), []).append(result)
        metrics = result.metrics
        training = "one training for all texts" if trained == ONE_TRAINING else "a training of its own"
        store.progress.line(
            f"  {control} text, {training}: mAP@.5 {metrics['map50']:.3f}, mAP@.5:.95 {metrics['map']:.3f}"
        )

    with load_datasets(data, extra, store.progress) as datasets:
        settings = {"start": start, **build_model(None).text_settings(datasets[0])}
        for seed in seeds:
            for dataset in datasets:
                store.progress.line(f"{dataset.name}, seed {seed}")
                model = build_model(None)
                trained = store.run(model, dataset, budget, seed)
                for control in TEXT_CONTROLS:
                    add(dataset, ONE_TRAINING, control, _evaluate(model, trained, control, dataset, store))
                for control in TEXT_CONTROLS:
                    if retrain and control != "right":
                        other = build_model(controlled_vocabulary(control, dataset, seed))
                        add(dataset, TRAINING_PER_TEXT, control, store.run(other, dataset, budget, seed))
                started = seeds[: seeds.index(seed) + 1]
                report({"budget": budget.plain, **_rows_and_tests(results, settings)}, started)


def controlled_vocabulary(control: str, dataset: BenchmarkDataset, seed: int) -> Vocabulary:
    """The vocabulary of a data set with its texts replaced (``prompts.text_controls.TEXT_CONTROLS``)."""
    boxes = Counter(a.label for labelled in dataset.val for a in labelled.annotations)
    return TEXT_CONTROLS[control](dataset.vocabulary, boxes, seed)


def _evaluate(
    model: DsmoeModel, trained: RunResult, control: str, dataset: BenchmarkDataset, store: RunStore
) -> RunResult:
    """Evaluate a trained model with a text control."""
    if control == "right":
        return trained
    vocabulary = controlled_vocabulary(control, dataset, trained.seed)
    images = [labelled.image for labelled in dataset.val]
    return store.evaluate_again(
        trained,
        f"text-{control}-{content_id(vocabulary.to_dict())}",
        lambda folder: model.predict(folder / "model", vocabulary, images, store.progress),
        dataset,
    )


def _rows_and_tests(results: dict[RowKey, list[RunResult]], settings: dict[str, Any]) -> dict[str, Any]:
    rows, tests = [], []
    right_minus_random: dict[str, Any] = {}
    for (name, trained, control), runs in results.items():
        rows.append({"data": name, "words": control, "trained": trained, **settings, **result_row(runs)})
        if control == "right":
            continue
        differences = comparison_rows(results[name, ONE_TRAINING, "right"], runs)
        keys = {"data": name, "words": "right", "against": control, "trained": trained}
        tests += [{**keys, **test} for test in differences]
        if (control, trained) == ("random", ONE_TRAINING) and differences:
            first = differences[0]
            right_minus_random[name] = {"delta": first["delta_map"], "ci95": first["ci95"]}
    return {"rows": rows, "tests": tests, "right_minus_random": right_minus_random}
