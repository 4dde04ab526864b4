"""The command line: help with examples, quick to answer, and what its exit codes say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from annotate.studio.fake import FakeStudio
from dsmoe_core.config import ModelConfig
from pipelines import cli
from pipelines.settings import DemoPlan, PackagedText, TextSettings, TransformersText, WorkspaceSettings
from pipelines.workspace.registry import new_card
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook

ROOT = Path(__file__).resolve().parents[3]


def leaves(command: object, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command as the words that call it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        return [words]
    return [leaf for name, one in inner.items() for leaf in leaves(one, (*words, name))]


COMMANDS = leaves(typer.main.get_command(cli.app))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli.app, [*words, "--help"])
    assert shown.exit_code == 0
    assert f"Example: dsmoe {' '.join(words)}" in " ".join(shown.output.replace("│", " ").split())


def test_help_imports_nothing_heavy() -> None:
    """What makes help quick: none of the packages that take a second to import."""
    heavy = {
        "torch",
        "fiftyone",
        "sqlalchemy",
        "numpy",
        "streamlit",
        "httpx",
        "label_studio_sdk",
        "transformers",
    }
    script = (
        "import sys\nfrom pipelines import cli\nassert cli.run(['--help']) == 0\n"
        f"print('HEAVY', sorted({heavy!r} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "HEAVY []" in shown.stdout


def test_a_bug_of_ours_is_shown_whole_and_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(Workspace, "open", lambda _: 1 / 0)
    assert cli.run(["status", str(tmp_path)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_ctrl_c_exits_130_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(_: Path) -> Workspace:
        raise KeyboardInterrupt

    monkeypatch.setattr(Workspace, "open", interrupt)
    assert cli.run(["status", str(tmp_path)]) == 130
    assert capsys.readouterr().err.strip() == "interrupted; run the same command to go on"


def test_an_unknown_option_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["status", "--colour"]) == 2
    assert "--colour" in capsys.readouterr().err


def dsmoe(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """What a command that succeeds prints."""
    assert cli.run([str(word) for word in words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_a_workspace_from_its_making_to_a_rollback(
    blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w, images, truth = tmp_path / "w", blocks / "images", blocks / "train.json"
    test = ("--test", blocks / "val.json")
    made = dsmoe(capsys, "init", w, "--images", images, *test, "--budget", "3", "--dry-run")
    assert "12 images in the pool, 5 in the test set" in made
    assert "rust" in dsmoe(capsys, "classes", "list", w)
    for _ in range(2):
        assert "0 of 3 images came back" in dsmoe(capsys, "round", "open", w)
        assert "0 of 3" in dsmoe(capsys, "round", "open", w)  # once more changes nothing
        assert "open: 0 of 3 came back" in " ".join(dsmoe(capsys, "status", w).split())
        dsmoe(capsys, "annotate", w, "--simulated", truth)
        assert "is closed; " in dsmoe(capsys, "round", "close", w)
    with Workspace.open(w) as workspace:
        first, second = (row.model or "" for row in workspace.rounds())
        assert len(FakeStudio(w / "studio" / "stub.json").open_tasks(1)) == 0
    assert first in dsmoe(capsys, "models", "list", w)
    dsmoe(capsys, "models", "promote", first, w)
    dsmoe(capsys, "models", "promote", second, w)
    assert f"champion: {first}" in dsmoe(capsys, "models", "rollback", w)
    assert '"new_images": 3' in dsmoe(capsys, "status", w, "--json")


def test_a_renamed_class_is_shown_and_then_renamed_in_the_labelling_project(
    blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w, truth = tmp_path / "w", blocks / "train.json"
    publish = ("classes", "publish", "--workspace", w, "--force", "no model knows it yet")
    dsmoe(capsys, "init", w, "--images", blocks / "images", "--classes", "rust,brick,plum", "--dry-run")
    dsmoe(capsys, "round", "open", w)
    dsmoe(capsys, "annotate", w, "--simulated", truth)
    assert "│" not in dsmoe(capsys, "classes", "migrate", w).replace("|", "│")  # no table of changes
    book = ClassBook.load(w / "classes.yaml").model_dump(mode="json")
    for entry in book["classes"]:
        if entry["name"] == "rust":
            entry.update(name="red_block", aliases=[*entry["aliases"], "rust"])
    ClassBook.from_content(book, "as changed").save(w / "classes.yaml")
    said = dsmoe(capsys, "classes", "migrate", w)
    assert "dsmoe classes diff" in said
    assert "red_block" not in said  # not published yet
    assert "dsmoe classes migrate" in dsmoe(capsys, *publish)
    for options in (["--dry-run"], [], None):
        said = " ".join(dsmoe(capsys, "classes", "migrate", w, *(options or [])).split())
        assert ("rust │ renamed to red_block" in said.replace("|", "│")) == (options is not None)
        assert ("Nothing was changed" in said) == (options == ["--dry-run"])
    drawn = {a.label for h in FakeStudio(w / "studio" / "stub.json").harvest(1) for a in h.annotations}
    assert drawn == {"red_block", "brick", "plum"}
    book["classes"] = [entry for entry in book["classes"] if entry["name"] != "plum"]
    ClassBook.from_content(book, "as changed").save(w / "classes.yaml")
    dsmoe(capsys, *publish)
    assert cli.run(["classes", "migrate", str(w), "--dry-run"]) == 2
    assert "annotations use the class 'plum'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("which", "kept"),
    [
        ("minilm", PackagedText()),
        ("acme/words", TransformersText(model="acme/words")),
        ("words", None),  # a folder in the present one
    ],
)
def test_a_workspace_is_made_with_a_text_encoder(
    which: str,
    kept: TextSettings | None,
    blocks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words").mkdir()
    made = ("init", "w", "--images", blocks / "images", "--classes", "rust", "--text-encoder", which)
    dsmoe(capsys, *made)
    wanted = kept or TransformersText(model=str((tmp_path / "words").resolve()))
    assert WorkspaceSettings.read(tmp_path / "w" / "dsmoe.yaml").detector.text_encoder == wanted


NETWORK = [("--tiny-head", True), ("--no-tiny-head", False)]


@pytest.mark.parametrize(("option", "tiny"), NETWORK)
def test_a_workspace_is_made_with_a_row_of_the_ablation_and_a_head(
    option: str, tiny: bool, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w, images = tmp_path / "w", blocks / "images"
    dsmoe(capsys, "init", w, "--images", images, "--classes", "rust", "--ablation", "d", option)
    model = WorkspaceSettings.read(w / "dsmoe.yaml").detector.model
    assert model == ModelConfig.of_size("nano").model_copy(update={"ablation": "D"}).with_tiny_head(tiny)
    assert (4 in model.head_strides) is tiny


@pytest.mark.parametrize(("option", "tiny"), NETWORK)
def test_a_demo_is_run_with_a_row_of_the_ablation_and_a_head(
    option: str, tiny: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[DemoPlan] = []
    monkeypatch.setattr("pipelines.cli.demo.run", lambda plan, *_, **__: plans.append(plan))
    dsmoe(capsys, "demo", "--ablation", "d", option)
    (plan,) = plans
    assert plan.model.ablation == "D"
    assert (4 in plan.model.head_strides) is tiny


@pytest.mark.parametrize(
    ("which", "problem"),
    [
        ("http://127.0.0.1:8000/v1", "detector.text_encoder"),
        ("no-such-folder", "expected ORG/NAME or the absolute path of a folder"),
    ],
)
def test_a_text_encoder_that_cannot_be_named_so(
    which: str, problem: str, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ["init", tmp_path / "w", "--images", blocks / "images", "--classes", "rust"]
    assert cli.run([*map(str, made), "--text-encoder", which]) == 2
    assert problem in capsys.readouterr().err


def test_the_list_of_models_says_which_text_encoder_each_has(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    card = new_card(
        "r0-12345678",
        number=0,
        parent=None,
        dataset_version="d",
        class_book="b",
        training={"text_encoder": "acme/words@0123"},
    )
    workspace.registry.register(card)
    assert "acme/words@0123" in dsmoe(capsys, "models", "list", workspace.path)


def test_a_command_out_of_order_says_what_to_do(
    blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w = tmp_path / "w"
    dsmoe(capsys, "init", w, "--images", blocks / "images", "--classes", "rust", "--dry-run")
    orders: list[tuple[tuple[str | Path, ...], str]] = [
        (("round", "close", w), "Open one with `dsmoe round open`"),
        (("annotate", w, "--simulated", blocks / "train.json"), "no round is open"),
        (("models", "rollback", w), "no champion"),
        (("services", "status", w), "dry run without a labelling server"),
        (("classes", "draft", w), "--llm or DSMOE_LLM_URL"),
        (("init", w, "--images", blocks / "images", "--classes", "rust"), "is a workspace already"),
        (("benchmark", "speed"), "No such command 'speed'"),
    ]
    for words, expected in orders:
        assert cli.run([str(word) for word in words]) == 2
        assert expected in capsys.readouterr().err


def test_review_gives_fiftyone_every_image_with_truth_detections_and_tags(
    context: object, label: Callable[[object], None], workspace: Workspace
) -> None:
    from pipelines.rounds.loop import close_round, open_round
    from pipelines.services.review import review_samples

    open_round(context)  # type: ignore[arg-type]
    label(context)
    close_round(context)  # type: ignore[arg-type]
    shown = {s.image.key: s for s in review_samples(workspace)}
    assert len(shown) == 17
    sent = {task.key for task in workspace.journal.tasks()}
    for key, sample in shown.items():
        judged = "test set" in sample.tags
        assert (sample.annotations is not None) == (judged or key in sent)
        assert (sample.prediction is not None) == judged  # the champion has looked at the test set so far
        assert ("seed" in sample.tags) == ("round 0" in sample.tags) == (key in sent)


def test_in_a_database_that_workspaces_share_each_has_a_data_set_of_its_own(
    workspace: Workspace, tmp_path: Path
) -> None:
    from pipelines.services.review import dataset_name

    workspace.complete()
    assert dataset_name(workspace, shared=False) == "dsmoe-blocks"
    name = dataset_name(workspace, shared=True)
    assert re.fullmatch(r"dsmoe-blocks-[0-9a-f]{8}", name)
    workspace.close()
    moved = workspace.path.rename(tmp_path / "moved")
    with Workspace.open(moved) as again:
        assert dataset_name(again, shared=True) == name
    with Workspace.create(tmp_path / "other", workspace.settings) as other:
        assert dataset_name(other, shared=False) == "dsmoe-blocks"
        assert dataset_name(other, shared=True) != name
