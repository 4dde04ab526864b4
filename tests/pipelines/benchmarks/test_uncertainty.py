"""dsmoe benchmark uncertainty: the result file, and models without classes to leave out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import VOCABULARY, diverse_network
from tiny import SMALL, HashEncoder

from dsmoe_core.checkpoint import save_model
from dsmoe_core.runtimes.protocol import NextExperts, RuntimeOutput
from dsmoe_core.schema import ClassText, Vocabulary
from dsmoe_core.uncertainty.score_kinds import SCORE_KINDS
from pipelines import cli
from pipelines.benchmarks.uncertainty import evaluate_unseen_class
from pipelines.benchmarks.uncertainty_samples import without_class
from pipelines.benchmarks.uncertainty_table import uncertainty_table
from pipelines.detectors.ds_moe import DSMoEBackend
from tests.pipelines.blocks import COLOURS
from tests.pipelines.label_errors.scene import CLASSES, make_scene


@pytest.fixture(autouse=True)
def _hash_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())


@pytest.fixture
def data(blocks: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(blocks / "images", folder / "images")
    for name in ("train.json", "val.json"):
        shutil.copy(blocks / "train.json", folder / name)
    return folder


def run(data: Path, tmp_path: Path, *options: str, classes: int | None = None) -> int:
    model = tmp_path / "model"
    save_model(model, diverse_network(), SMALL, VOCABULARY, {"text_encoder": HashEncoder.name})
    book = tmp_path / "classes.yaml"
    entries = [f"- {{name: {name}, description: a {name}}}\n" for name in list(COLOURS)[:classes]]
    book.write_text("classes:\n" + "".join(entries))
    words = ["benchmark", "uncertainty", "--data", data, "--model", model, "--class-book", book]
    words += ["--out", tmp_path / "results", "--resamples", "100", "--max-images", "6", *options]
    return cli.run([str(word) for word in words])


@pytest.mark.slow
def test_result_file_has_every_score_against_plain_entropy(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path, "--other", str(data)) == 0
    measured: dict[str, Any] = json.loads((tmp_path / "results" / "uncertainty.json").read_text())
    scores = measured["scores"]
    assert scores.keys() == SCORE_KINDS.keys() | {"localisation_75"}
    for row in (*scores.values(), measured["images_scores"]["missed"]):
        assert 0 <= row["errors"] <= row["samples"]
        for value in (row["auroc"], row["entropy"], row["ece"]):
            assert value is None or 0 <= value <= 1
    assert scores["description"]["samples"] == 0  # the classes have one text each
    assert scores["routing"]["samples"] > 0
    assert [row["class"] for row in measured["novelty_per_class"]] == list(COLOURS)
    assert [row["min_score"] for row in measured["localisation_spearman"]] == [0, 0.3]
    assert measured["images_scores"]["corrections"]["mean_actual"] > 0
    assert measured["other_data"]["images"] == 6
    cost = measured["relative_cost"]
    assert cost["seconds_without_scores"] > 0
    assert cost["scores_and_next_experts"] > 0.5


def test_model_of_one_class_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train.json", "val.json"):
        content = json.loads((data / name).read_text())
        content["categories"] = content["categories"][:1]
        kept = content["categories"][0]["id"]
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] == kept]
        (data / name).write_text(json.dumps(content))
    assert run(data, tmp_path, classes=1) == 2
    assert "several classes" in " ".join(capsys.readouterr().err.split())


def without_the_last_class(folder: Path) -> Path:
    """A model of all classes but one."""
    vocabulary = Vocabulary(tuple(ClassText(name, f"a {name}") for name in list(COLOURS)[:-1]))
    save_model(folder, diverse_network(), SMALL, vocabulary, {"text_encoder": HashEncoder.name})
    return folder


@pytest.mark.slow
def test_class_that_a_second_model_never_saw(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = without_the_last_class(tmp_path / "second")
    assert run(data, tmp_path, "--without-class", str(second)) == 0
    measured = json.loads((tmp_path / "results" / "uncertainty.json").read_text())
    unseen = measured["unseen_class"]
    assert unseen["class"] == list(COLOURS)[-1]
    assert unseen["boxes"] > 0
    assert unseen["scores"].keys() == {"novelty", "description"}
    assert unseen["scores"]["novelty"]["all"]["samples"] > 0  # the training images' boxes are known
    assert "trained without" in uncertainty_table(measured)
    assert run(data, tmp_path, "--without-class", str(tmp_path / "model")) == 2  # of other classes
    assert "expected one" in " ".join(capsys.readouterr().err.split())


def test_novel_objects_are_those_under_boxes_of_the_unseen_class() -> None:
    labelled, given = make_scene(12)
    novelty = {CLASSES[0]: 0.2, CLASSES[1]: 0.9}
    predictions = {
        key: replace(
            p,
            detections=tuple(
                replace(d, label=CLASSES[0], probabilities={CLASSES[0]: d.score}, uncertainty={"novelty": n})
                for d in p.detections
                for n in [novelty[d.label]]
            ),
        )
        for key, p in given.items()
    }
    first = labelled[0]  # its detections of the other class are on background
    kept = tuple(a for a in first.annotations if a.label == CLASSES[1])
    labelled = [replace(first, annotations=kept), *labelled[1:]]
    scores = evaluate_unseen_class(predictions, labelled, CLASSES[1], resamples=100, seed=0)
    boxes = sum(a.label == CLASSES[1] for item in labelled for a in item.annotations)
    everywhere, on_objects = scores["novelty"]["all"], scores["novelty"]["on_objects"]
    assert (everywhere["samples"], everywhere["errors"]) == (72, boxes)
    assert everywhere["auroc"] == on_objects["auroc"] == 1.0
    assert on_objects["samples"] == 72 - (len(first.annotations) - len(kept)) < 72
    assert on_objects["errors"] == boxes
    assert scores["description"]["all"]["samples"] == 0


def test_columns_of_a_class_and_of_its_texts_are_removed() -> None:
    texts = (("a", ("a1", "a2")), ("b", ()), ("c", ("c1",)))
    vocabulary = Vocabulary(tuple(ClassText(name, name, paraphrases=more) for name, more in texts))
    logits = torch.arange(8.0).expand(1, 2, 8)  # a, b, c, three texts of a, two of c
    empty = torch.zeros(1, 2, 4)
    output = RuntimeOutput(logits, empty, empty, None, NextExperts(logits, empty))
    for name, columns in (("a", [1, 2, 6, 7]), ("b", [0, 2, 3, 4, 5, 6, 7]), ("c", [0, 1, 3, 4, 5])):
        part = without_class(output, vocabulary, name)
        assert part.logits[0, 0].tolist() == columns
        assert part.next_experts is not None
        assert part.next_experts.logits[0, 1].tolist() == columns
    plain = output._replace(logits=logits[..., :3], next_experts=None)
    assert without_class(plain, vocabulary, "b").logits[0, 0].tolist() == [0, 2]
