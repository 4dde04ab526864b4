"""dsmoe classes evaluate, from the command line to the files, with a stub and with a network."""

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
from pipelines.detectors.backend import DSMoEBackend
from pipelines.evaluation.text_eval.distances import class_distances
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.class_entry import ClassEntry
from prompts.evaluation_report import TextEvaluationReport
from tests.pipelines.blocks import COLOURS
from tests.pipelines.evaluation.report.test_evaluate import models  # noqa: F401  # a workspace with a champion

Out = pytest.CaptureFixture[str]


def written(path: Path, **texts: str) -> Path:
    """A class book of the blocks."""
    said = {**{name: f"a {name} block" for name in COLOURS}, **texts}
    ClassBook(classes=tuple(ClassEntry(name=n, description=t) for n, t in said.items())).save(path)
    return path


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network that was never trained, and whose text encoder needs no packaged one."""
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    words = ClassBook.load(written(tmp_path / "trained.yaml")).vocabulary()
    save_model(tmp_path / "network", build_full_network(SMALL), SMALL, words, {})
    return tmp_path / "network"


def test_a_workspace_s_champion_reads_its_own_book(models: Path, tmp_path: Path, capsys: Out) -> None:  # noqa: F811
    """The stub reads no words: nothing differs, and it is said that nothing would."""
    out = tmp_path / "evaluation.json"
    asked = (
        "classes",
        "evaluate",
        "working",
        "--workspace",
        str(models),
        "--resamples",
        "100",
        "--json",
        str(out),
    )
    assert cli.run(asked) == 0
    report = TextEvaluationReport.load(out)
    with Workspace.open(models) as opened:
        assert report.book == report.against == opened.class_book().version
    assert (report.model, report.verdict) == ("late", "no worse")
    assert report.data == "test set of workspace, 5 images"
    said = capsys.readouterr().out
    assert report.reason in said
    assert "The model does not read these words, as far as shown" in report.reason
    assert f"{out} is written" in said
    assert "Publish it with" not in said  # it is what is published
    with Workspace.open(models) as opened:
        opened.working_book().with_description("rust", "red", "person", "Ada").save(models / "classes.yaml")
    assert cli.run(asked) == 0  # again, over the old file
    (next_one,) = (said for said in capsys.readouterr().out.splitlines() if said.startswith("Publish it"))
    assert cli.run(next_one.split("`")[1].split()[1:]) == 0
    with Workspace.open(models) as opened:
        assert opened.class_book() == opened.working_book()


def test_a_network_reads_two_files_on_images_from_anywhere(
    network: Path, blocks: Path, tmp_path: Path, capsys: Out
) -> None:
    books = [written(tmp_path / "a.yaml", rust="brown and flaking"), written(tmp_path / "b.yaml")]
    report, out = tmp_path / "report", tmp_path / "evaluation.json"
    data = ("--annotations", blocks / "val.json", "--images", blocks / "images", "--model", network)
    asked = ["classes", "evaluate", *books, *data, "--resamples", "100", "--json", out, "--report", report]
    assert cli.run([str(word) for word in asked]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    assert found["book"] == ClassBook.load(books[0]).version
    assert found["verdict"] in ("better", "no worse", "worse", "undecided")
    for side in ("this", "other"):
        for space in ("ball", "embedding"):
            table = found["distances"][side][space]
            assert [table[i][i] for i in range(3)] == [0, 0, 0]
            assert all(abs(table[i][k] - table[k][i]) < 1e-5 for i in range(3) for k in range(3))
            assert min(table[0][1], table[0][2], table[1][2]) > 0
    same = [[found["distances"][side]["embedding"][1][2] for side in ("this", "other")]]
    same.append([found["distances"][side]["embedding"][0][1] for side in ("this", "other")])
    assert same[0][0] == same[0][1]  # brick and plum are as they were, rust is not
    assert same[1][0] != same[1][1]
    assert len(found["experts"]["this"]) == 3
    assert json.loads((report / "evaluation.json").read_text()) == found
    assert "report.html is written" in capsys.readouterr().out


def test_distances_follow_the_books_order(network: Path) -> None:
    detector = DSMoEBackend(SMALL, network)
    words = ClassBook.load(network.parent / "trained.yaml").vocabulary()
    turned = Vocabulary(words.classes[::-1], words.inner, words.version)
    one, other = (class_distances(detector, network, v) for v in (words, turned))
    assert one is not None
    assert other is not None
    back = other.ordered([2, 1, 0])
    assert back.embedding == pytest.approx(one.embedding)
    assert back.ball == pytest.approx(one.ball)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["working"], "'working' is a class book of a workspace, and there is none here"),
        (["nowhere.yaml", "nowhere.yaml"], "the class book nowhere.yaml cannot be read"),
        (["a.yaml", "a.yaml"], "model 'champion' is not a folder"),
        (["a.yaml", "a.yaml", "--model", "network"], "there is neither workspace nor test set"),
        (
            ["a.yaml", "a.yaml", "--model", "network", "--images", "."],
            "--annotations and --images go together",
        ),
        (["a.yaml", "a.yaml", "--report", "."], "is the present folder or above it"),
    ],
)
def test_a_mistake_is_one_line(
    network: Path, words: list[str], said: str, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(network.parent)
    written(Path("a.yaml"))
    assert cli.run(["classes", "evaluate", *words]) == 2
    assert said in capsys.readouterr().err
