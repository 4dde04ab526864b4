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
from pipelines.label_errors.data import LabelsToCheck
from pipelines.label_errors.label_error import ErrorKind
from pipelines.label_errors.new_labels import (
    NO_REFERENCE,
    CheckedLabels,
    NewLabels,
    check_new_labels,
    errors_by_image,
)
from pipelines.progress import SilentProgress
from pipelines.rounds.context import LoopContext
from pipelines.rounds.gate import GATE_CHECKS, CheckResult, Comparison, Outcome
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.simulated_annotator import load_truth, simulated_annotator
from pipelines.settings.demo import DemoPlan
from pipelines.settings.gate import GateSettings
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.registry import Metrics
from tests.pipelines.blocks import COLOURS, write_blocks
from tests.pipelines.label_errors.scene import CLASSES, make_scene
from tests.pipelines.rounds.test_repeatable_close import publish

METRICS = Metrics(map50=0.5, map=0.5, precision=1, recall=1, f1=1, per_class={}, evaluated_on="t+b")


@pytest.mark.parametrize(
    ("errors", "defects", "outcome"),
    [
        (0, 0, Outcome.PASS),
        (0, 200, Outcome.PASS),
        (5, 200, Outcome.PASS),  # 2.5 %, not certainly above the limit
        (1, 1, Outcome.PASS),
        (2, 10, Outcome.PASS),  # 20 %, but of few
        (3, 10, Outcome.FAIL),
        (20, 250, Outcome.FAIL),
        (10, 10, Outcome.FAIL),
    ],
)
def test_share_must_be_certainly_above_the_limit(errors: int, defects: int, outcome: Outcome) -> None:
    rounds = [NewLabels(2, images=4, defects=100, errors=0), NewLabels(3, 5, defects, errors, left_out=2)]

    def check(settings: GateSettings) -> CheckResult:
        found = CheckedLabels(rounds, NO_REFERENCE)
        return run_check(found, settings)

    result = check(GateSettings())
    assert (result.outcome, result.values["limit"]) == (outcome, 0.02)
    row = result.values["rounds"][1]
    assert {name: row[name] for name in rounds[1]._fields} == rounds[1]._asdict()
    if defects:
        assert row["low"] <= row["difference"] == errors / defects <= row["high"]
    assert check(GateSettings(max_label_errors=1.0)).outcome is Outcome.PASS


def run_check(found: CheckedLabels, settings: GateSettings) -> CheckResult:
    compared = Comparison(METRICS, METRICS, settings, check_new_labels=lambda: found)
    return GATE_CHECKS["labels"].check(compared)


def test_worst_round_decides() -> None:
    """Right labels of other rounds, or of no round, do not hide a round of wrong ones."""
    rounds = [NewLabels(1, 40, 260, 25), NewLabels(2, 400, 2600, 2), NewLabels(None, 400, 2600, 0)]
    result = run_check(CheckedLabels(rounds, NO_REFERENCE), GateSettings())
    assert result.outcome is Outcome.FAIL
    assert "round 1" in result.reason


@pytest.mark.parametrize(
    ("errors", "outcome"), [(0, Outcome.PASS), (15, Outcome.PASS), (25, Outcome.PASS), (60, Outcome.FAIL)]
)
def test_share_is_compared_with_that_of_the_test_set(errors: int, outcome: Outcome) -> None:
    test_set = NewLabels(None, 100, 600, 36)
    result = run_check(CheckedLabels([NewLabels(1, 40, 250, errors)], test_set), GateSettings())
    assert result.outcome is outcome
    (row,) = result.values["rounds"]
    assert row["difference"] == pytest.approx(errors / 250 - 0.06)


def test_interval_of_the_difference_is_that_of_newcombe() -> None:
    """56 of 70 against 48 of 80: +0.2, [0.0524, 0.3339] (Newcombe 1998, table II, method 10)."""
    found = CheckedLabels([NewLabels(1, 40, 70, 56)], NewLabels(None, 40, 80, 48))
    (row,) = run_check(found, GateSettings()).values["rounds"]
    assert (row["low"], row["high"]) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


@pytest.fixture(params=["test set"])
def many_blocks(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LoopContext]:
    """A workspace with 90 images in the pool, 30 a round, whose gate has the check alone."""
    data = write_blocks(tmp_path / "data", train=90, val=40)
    plan = DemoPlan(rounds=3, budget=30, random_share=0.1, candidates=None, dry_run=True)
    settings = plan.workspace_settings("blocks").model_copy(update={"gate": GateSettings(checks=("labels",))})
    train = coco.read(data / "train.json")
    source = Source(
        data / "images",
        test=coco.read(data / "val.json") if request.param == "test set" else None,
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


def test_round_with_wrong_labels_is_refused_and_still_counts_in_the_next_one(
    many_blocks: LoopContext, tmp_path: Path
) -> None:
    workspace, truth = many_blocks.workspace, tmp_path / "data" / "train.json"
    first = close_with(many_blocks, truth, 0.0)
    bad = close_with(many_blocks, truth, 0.45)
    assert (bad["verdict"], workspace.champion()) == ("refused", first["model"])
    (row,) = bad["checks"]["labels"]["values"]["rounds"]
    assert (row["round"], row["images"], row["left_out"]) == (1, 30, 0)
    # The wrong labels are still new to the next candidate.
    after = close_with(many_blocks, truth, 0.0)
    assert (after["verdict"], workspace.champion()) == ("refused", first["model"])
    (wrong, right), reference = check_new_labels(workspace, after["model"], first["model"])
    assert reference.images == 40
    assert reference.errors <= 1
    assert (wrong.round, wrong.images, right.round, right.images) == (1, 30, 2, 30)
    assert wrong.errors >= 5
    assert right.errors < 3


def test_rounds_with_right_labels_pass(many_blocks: LoopContext, tmp_path: Path) -> None:
    results = [close_with(many_blocks, tmp_path / "data" / "train.json", 0.0) for _ in range(3)]
    assert [result["verdict"] for result in results] == ["promoted"] * 3
    rows = [result["checks"]["labels"]["values"]["rounds"] for result in results[1:]]
    assert [[row["errors"] for row in of_round] for of_round in rows] == [[0], [0]]


def test_labels_without_a_prediction_are_left_out(many_blocks: LoopContext, tmp_path: Path) -> None:
    workspace = many_blocks.workspace
    truth = tmp_path / "data" / "train.json"
    first = close_with(many_blocks, truth, 0.0)["model"]
    assert check_new_labels(workspace, first, first).rounds == []
    second = close_with(many_blocks, truth, 0.0)["model"]
    # Seen from the second model, no model has predicted the images of the first round before its training.
    assert check_new_labels(workspace, first, second).rounds == []
    for version in (workspace.path / "predictions").glob("*.jsonl"):
        version.unlink()
    (row,), reference = check_new_labels(workspace, second, first)
    assert reference == NO_REFERENCE
    assert row == NewLabels(1, images=0, defects=0, errors=0, left_out=30)


@pytest.mark.parametrize("many_blocks", ["no test set"], indirect=True)
def test_without_a_test_set_the_labels_decide(many_blocks: LoopContext, tmp_path: Path) -> None:
    workspace, truth = many_blocks.workspace, tmp_path / "data" / "train.json"
    first = close_with(many_blocks, truth, 0.0)
    bad = close_with(many_blocks, truth, 0.2)
    assert (bad["verdict"], workspace.champion()) == ("refused", first["model"])
    assert list(bad["checks"]) == ["labels"]


def test_class_that_is_new_to_the_champion_cannot_be_mislabelled() -> None:
    labelled, predictions = make_scene(60)
    planted = plant_errors(labelled, CLASSES, seed=0)
    labels = LabelsToCheck(planted.labelled, predictions, CLASSES, {"model": 60})
    kinds = {
        len(known): {error.kind for errors in errors_by_image(labels, known).values() for error in errors}
        for known in (set(CLASSES), set[str]())
    }
    assert ErrorKind.MISLABELLED in kinds[2]
    assert ErrorKind.MISLABELLED not in kinds[0]


def test_removed_class_does_not_stop_the_gate(many_blocks: LoopContext, tmp_path: Path) -> None:
    workspace, truth = many_blocks.workspace, tmp_path / "data" / "train.json"
    first, second = (close_with(many_blocks, truth, 0.0)["model"] for _ in range(2))
    (before,), _ = check_new_labels(workspace, second, first)
    renewed = publish(many_blocks, remove=next(iter(COLOURS))).workspace
    (after,), _ = check_new_labels(renewed, second, first)
    assert after.defects < before.defects
