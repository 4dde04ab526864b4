"""Text ablation of one trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmarks.comparison.protocol import Budget
from pipelines.benchmarks.comparison.run_store import RunStore
from pipelines.benchmarks.comparison.text_ablation import run_text_ablation
from prompts.text_controls import TEXT_CONTROLS
from tests.pipelines.benchmarks.comparison.test_dsmoe_model import tiny_model


@pytest.mark.slow
def test_one_model_is_evaluated_with_all_texts_and_others_are_trained_on_request(
    data: Path, store: RunStore, trainings: list[dict[str, Any]]
) -> None:
    reports: list[dict[str, Any]] = []

    def measure(retrain: bool) -> dict[str, Any]:
        run_text_ablation(
            tiny_model,
            [data],
            Budget(epochs=1),
            [1],
            store,
            lambda measured, _: reports.append(measured),
            retrain=retrain,
        )
        return reports[-1]

    once = measure(retrain=False)
    assert len(trainings) == 1
    assert [(r["words"], r["trained"]) for r in once["rows"]] == [(text, "once") for text in TEXT_CONTROLS]
    assert {t["against"] for t in once["tests"]} == set(TEXT_CONTROLS) - {"right"}
    random = next(t for t in once["tests"] if t["against"] == "random")
    assert once["right_minus_random"] == {"squares": {"delta": random["delta_map"], "ci95": random["ci95"]}}
    assert measure(retrain=False) == once
    assert len(trainings) == 1
    per_text = measure(retrain=True)
    assert len(trainings) == 4
    retrained = [r["words"] for r in per_text["rows"] if r["trained"] == "anew"]
    assert retrained == ["name", "random", "swapped"]
    assert [r for r in per_text["rows"] if r["trained"] == "once"] == once["rows"]
