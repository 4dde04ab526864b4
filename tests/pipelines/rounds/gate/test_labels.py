"""Check ``labels`` of the promotion gate: by its counts, and on rounds whose annotator makes errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from annotate.studio.fake import FakeStudio
from dsmoe_core.data import coco
from pipelines.benchmarks.label_errors import plant_errors
from pipelines.detectors.stub_detector import StubDetector
from pipelines.label_errors.new_labels import NewLabels, check_new_labels
from pipelines.progress import SilentProgress
from pipelines.rounds.context import LoopContext
from pipelines.rounds.gate import GATE_CHECKS, Comparison, Outcome
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.simulated_annotator import load_truth, simulated_annotator
from pipelines.settings.demo import DemoPlan
from pipelines.settings.gate import GateSettings
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.registry import Metrics
from tests.pipelines.blocks import COLOURS, write_blocks

METRICS = Metrics(map50=0.5, map=0.5, precision=1, recall=1, f1=1, per_class={}, evaluated_on="t+b")


@pytest.mark.parametrize(
    ("errors", "defects", "outcome"),
    [
        (0, 0, Outcome.PASS),
        (0, 200, Outcome.PASS),
        (5, 200, Outcome.PASS),  # 2.5 %, not certainly above the limit
        (1, 10, Outcome.PASS),  # 10 %, but of few
        (20, 250, Outcome.FAIL),
        (10, 10, Outcome.FAIL),
    ],
)
def test_share_must_be_certainly_above_the_limit(errors: int, defects: int, outcome: Outcome) -> None:
    def found() -> NewLabels:
        return NewLabels(images=5, defects=defects, errors=errors, left_out=2)

    result = GATE_CHECKS["labels"].check(Comparison(METRICS, METRICS, GateSettings(), check_new_labels=found))
    assert result.outcome is outcome
    expected: dict[str, Any] = {
        "images": 5,
        "defects": defects,
        "errors": errors,
        "left_out": 2,
        "limit": 0.02,
    }
    assert {name: result.values[name] for name in expected} == expected
    if defects:
        assert result.values["low"] <= result.values["share"] == errors / defects <= result.values["high"]
    lenient = GateSettings(max_label_errors=1.0)
    passed = GATE_CHECKS["labels"].check(Comparison(METRICS, METRICS, lenient, check_new_labels=found))
    assert passed.outcome is Outcome.PASS


@pytest.fixture
def many_blocks(tmp_path: Path) -> Iterator[LoopContext]:
    """A workspace with 90 images in the pool, 30 a round, whose gate has the check alone."""
    data = write_blocks(tmp_path / "data", train=90, val=6)
    plan = DemoPlan(rounds=3, budget=30, random_share=0.1, candidates=None, dry_run=True)
    settings = plan.workspace_settings("blocks").model_copy(update={"gate": GateSettings(checks=("labels",))})
    train = coco.read(data / "train.json")
    source = Source(
        data / "images",
        test=coco.read(data / "val.json"),
        classes=list(COLOURS),
        pool={entry.name for entry in train.images},
    )
    made, _ = make_workspace(tmp_path / "workspace", source, settings)
    with made:
        studio = FakeStudio(made.path / "studio" / "fake.json")
        yield LoopContext(made, studio, StubDetector(), SilentProgress())


def close_with(context: LoopContext, truth: Path, wrong: float) -> dict[str, Any]:
    """Open a round, label it with this share of wrong boxes, and close it; the result of the round."""
    open_round(context)
    workspace = context.workspace
    row = workspace.rounds()[-1]
    labels = load_truth(truth, workspace)
    if wrong:
        keys = [task.key for task in workspace.journal.tasks(row.round)]
        planted = plant_errors([labels[key] for key in keys], tuple(COLOURS), seed=1, share=wrong / 3)
        labels |= {item.image.key: item for item in planted.labelled}
    simulated_annotator(labels)(context, row)
    close_round(context)
    return dict(workspace.journal.rounds()[-1].result or {})


def test_round_with_wrong_labels_is_refused_until_they_are_corrected(
    many_blocks: LoopContext, tmp_path: Path
) -> None:
    workspace, truth = many_blocks.workspace, tmp_path / "data" / "train.json"
    first = close_with(many_blocks, truth, 0.0)
    bad = close_with(many_blocks, truth, 0.45)
    assert (bad["verdict"], workspace.champion()) == ("refused", first["model"])
    values = bad["checks"]["labels"]["values"]
    assert values["images"] == 30
    assert values["errors"] >= 5
    # The wrong labels are still new to the next candidate.
    after = close_with(many_blocks, truth, 0.0)
    found = check_new_labels(workspace, after["model"], first["model"])
    assert (found.images, found.left_out) == (60, 0)
    assert found.errors >= 5


def test_rounds_with_right_labels_pass(many_blocks: LoopContext, tmp_path: Path) -> None:
    results = [close_with(many_blocks, tmp_path / "data" / "train.json", 0.0) for _ in range(3)]
    assert [result["verdict"] for result in results] == ["promoted"] * 3
    assert [result["checks"]["labels"]["values"]["errors"] for result in results[1:]] == [0, 0]


def test_labels_without_a_prediction_are_left_out(many_blocks: LoopContext, tmp_path: Path) -> None:
    workspace = many_blocks.workspace
    model = close_with(many_blocks, tmp_path / "data" / "train.json", 0.0)["model"]
    assert check_new_labels(workspace, model, model) == NewLabels(0, 0, 0, 0)
