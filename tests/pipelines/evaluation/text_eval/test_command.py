"""dsmoe classes evaluate, with the stub detector and with a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import SMALL, HashEncoder

from dsmoe_core.build import build_full_network
from dsmoe_core.checkpoint import save_model
from dsmoe_core.schema import Vocabulary
from pipelines import cli
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.evaluation.text_eval.distances import class_distances
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.class_entry import ClassEntry
from prompts.evaluation_report import TextEvaluationReport
from tests.pipelines.blocks import COLOURS

Out = pytest.CaptureFixture[str]


def save_book(path: Path, **descriptions: str) -> Path:
    """Write a class book of the blocks."""
    texts = {**{name: f"a {name} block" for name in COLOURS}, **descriptions}
    ClassBook(classes=tuple(ClassEntry(name=n, description=t) for n, t in texts.items())).save(path)
    return path


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder with an untrained network and a fast text encoder."""
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    vocabulary = ClassBook.load(save_book(tmp_path / "trained.yaml")).vocabulary()
    save_model(tmp_path / "network", build_full_network(SMALL), SMALL, vocabulary, {})
    return tmp_path / "network"


def test_working_book_is_evaluated_and_published(models: Path, tmp_path: Path, capsys: Out) -> None:
    """The stub detector ignores the text, so the books do not differ."""
    out = tmp_path / "evaluation.json"
    workspace = ("--workspace", str(models))
    command = ["classes", "evaluate", "working", *workspace, "--resamples", "100", "--json", str(out)]
    assert cli.run(command) == 0
    report = TextEvaluationReport.load(out)
    with Workspace.open(models) as opened:
        assert report.book == report.against == opened.class_book().version
    assert (report.model, report.verdict) == ("late", "no worse")
    assert report.data == "test set of workspace, 5 images"
    output = capsys.readouterr().out
    assert report.reason in output
    assert json.loads(out.read_text())["text_effect"]["answer"] == "not shown"
    assert str(out) in output
    assert "classes publish" not in output  # this version is published already
    with Workspace.open(models) as opened:
        opened.working_book().with_description("rust", "red", "person", "Ada").save(models / "classes.yaml")
    assert cli.run(command) == 0  # replaces the old file
    (hint,) = (text for text in capsys.readouterr().out.splitlines() if "classes publish" in text)
    assert cli.run(hint.split("`")[1].split()[1:]) == 0
    with Workspace.open(models) as opened:
        assert opened.class_book() == opened.working_book()


def test_two_files_on_external_images(network: Path, blocks: Path, tmp_path: Path, capsys: Out) -> None:
    books = [save_book(tmp_path / "a.yaml", rust="brown and flaking"), save_book(tmp_path / "b.yaml")]
    report, out = tmp_path / "report", tmp_path / "evaluation.json"
    data = ("--annotations", blocks / "val.json", "--images", blocks / "images", "--model", network)
    command = ["classes", "evaluate", *books, *data, "--resamples", "100", "--json", out, "--report", report]
    assert cli.run([str(word) for word in command]) == 0
    metrics: dict[str, Any] = json.loads(out.read_text())
    assert metrics["book"] == ClassBook.load(books[0]).version
    assert metrics["verdict"] in ("better", "no worse", "worse", "undecided")
    for side in ("this", "other"):
        for space in ("ball", "embedding"):
            table = metrics["distances"][side][space]
            assert [table[i][i] for i in range(3)] == [0, 0, 0]
            assert all(abs(table[i][k] - table[k][i]) < 1e-5 for i in range(3) for k in range(3))
            assert min(table[0][1], table[0][2], table[1][2]) > 0
    this, other = (metrics["distances"][side]["embedding"] for side in ("this", "other"))
    assert this[1][2] == other[1][2]  # brick and plum have the same descriptions in both books
    assert this[0][1] != other[0][1]  # rust has not
    assert len(metrics["experts"]["this"]) == 3
    assert json.loads((report / "evaluation.json").read_text()) == metrics
    assert "report.html" in capsys.readouterr().out


def test_distances_can_be_reordered(network: Path) -> None:
    detector = DSMoEBackend(SMALL, network)
    vocabulary = ClassBook.load(network.parent / "trained.yaml").vocabulary()
    reversed_order = Vocabulary(vocabulary.classes[::-1], vocabulary.inner, vocabulary.version)
    expected, other = (class_distances(detector, network, v) for v in (vocabulary, reversed_order))
    assert expected is not None
    assert other is not None
    reordered = other.ordered([2, 1, 0])
    assert reordered.embedding == pytest.approx(expected.embedding)
    assert reordered.ball == pytest.approx(expected.ball)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["working"], "'working'"),
        (["nowhere.yaml", "nowhere.yaml"], "nowhere.yaml"),
        (["a.yaml", "a.yaml"], "'champion'"),
        (["a.yaml", "a.yaml", "--model", "network"], "--annotations"),
        (["a.yaml", "a.yaml", "--model", "network", "--images", "."], "--annotations"),
        (["a.yaml", "a.yaml", "--report", "."], "cannot be replaced"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    network: Path, arguments: list[str], value: str, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(network.parent)
    save_book(Path("a.yaml"))
    assert cli.run(["classes", "evaluate", *arguments]) == 2
    error = capsys.readouterr().err
    assert value in error
    assert len(error.strip().splitlines()) == 1
