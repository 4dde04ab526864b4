"""The command line: help, start-up time, exit codes, and commands in their usual order."""

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
from pipelines.settings.demo import DemoPlan
from pipelines.settings.detector import PackagedText, TextSettings, TransformersText
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.registry import new_card
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook

ROOT = Path(__file__).resolve().parents[3]


def commands_below(command: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Path of every command, such as ("round", "open")."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        return [path]
    return [leaf for name, sub in subcommands.items() for leaf in commands_below(sub, (*path, name))]


COMMANDS = commands_below(typer.main.get_command(cli.app))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command_has_an_example(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli.app, [*command, "--help"])
    assert result.exit_code == 0
    assert f"Example: dsmoe {' '.join(command)}" in " ".join(result.output.replace("│", " ").split())


def test_help_imports_no_slow_package() -> None:
    """Importing one of these packages takes a second."""
    slow = {
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
        f"print('SLOW', sorted({slow!r} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "SLOW []" in result.stdout


def test_bug_shows_a_traceback_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(Workspace, "open", lambda _: 1 / 0)
    assert cli.run(["status", str(tmp_path)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_ctrl_c_exits_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(_: Path) -> Workspace:
        raise KeyboardInterrupt

    monkeypatch.setattr(Workspace, "open", interrupt)
    assert cli.run(["status", str(tmp_path)]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_unknown_option_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["status", "--colour"]) == 2
    assert "--colour" in capsys.readouterr().err


def dsmoe(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run a command that must succeed; returns its output."""
    assert cli.run([*map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_workspace_from_init_to_rollback(
    blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w, images, truth = tmp_path / "w", blocks / "images", blocks / "train.json"
    test = ("--test", blocks / "val.json")
    made = dsmoe(capsys, "init", w, "--images", images, *test, "--budget", "3", "--dry-run")
    assert "12 images in the pool, 5 in the test set" in made
    assert "rust" in dsmoe(capsys, "classes", "list", w)
    for _ in range(2):
        assert "0 of 3 images" in dsmoe(capsys, "round", "open", w)
        assert "0 of 3" in dsmoe(capsys, "round", "open", w)  # idempotent
        assert "open: 0 of 3" in " ".join(dsmoe(capsys, "status", w).split())
        dsmoe(capsys, "annotate", w, "--simulated", truth)
        dsmoe(capsys, "round", "close", w)
    with Workspace.open(w) as workspace:
        first, second = (row.model or "" for row in workspace.rounds())
        assert len(FakeStudio(w / "studio" / "stub.json").open_tasks(1)) == 0
    assert first in dsmoe(capsys, "models", "list", w)
    dsmoe(capsys, "models", "promote", first, w)
    dsmoe(capsys, "models", "promote", second, w)
    assert f"champion: {first}" in dsmoe(capsys, "models", "rollback", w)
    assert '"new_images": 3' in dsmoe(capsys, "status", w, "--json")


def test_migrate_renames_a_class_in_the_labelling_project(
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
    output = dsmoe(capsys, "classes", "migrate", w)
    assert "dsmoe classes diff" in output
    assert "red_block" not in output  # not published yet
    assert "dsmoe classes migrate" in dsmoe(capsys, *publish)
    for options in (["--dry-run"], [], None):
        output = " ".join(dsmoe(capsys, "classes", "migrate", w, *(options or [])).split())
        assert ("rust │ renamed to red_block" in output.replace("|", "│")) == (options is not None)
        assert ("Nothing was changed" in output) == (options == ["--dry-run"])
    labels = {a.label for h in FakeStudio(w / "studio" / "stub.json").harvest(1) for a in h.annotations}
    assert labels == {"red_block", "brick", "plum"}
    book["classes"] = [entry for entry in book["classes"] if entry["name"] != "plum"]
    ClassBook.from_content(book, "as changed").save(w / "classes.yaml")
    dsmoe(capsys, *publish)
    assert cli.run(["classes", "migrate", str(w), "--dry-run"]) == 2
    assert "'plum' (6) on train-" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("minilm", PackagedText()),
        ("acme/words", TransformersText(model="acme/words")),
        ("words", None),  # a folder in the current folder
    ],
)
def test_init_with_a_text_encoder(
    which: str,
    expected: TextSettings | None,
    blocks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words").mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / "words" / name).touch()
    made = ("init", "w", "--images", blocks / "images", "--classes", "rust", "--text-encoder", which)
    dsmoe(capsys, *made)
    settings = expected or TransformersText(model=str((tmp_path / "words").resolve()))
    assert WorkspaceSettings.read(tmp_path / "w" / "dsmoe.yaml").detector.text_encoder == settings


NETWORK = [("--tiny-head", True), ("--no-tiny-head", False)]


@pytest.mark.parametrize(("option", "tiny"), NETWORK)
def test_init_with_ablation_row_and_head(
    option: str, tiny: bool, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w, images = tmp_path / "w", blocks / "images"
    dsmoe(capsys, "init", w, "--images", images, "--classes", "rust", "--ablation", "d", option)
    model = WorkspaceSettings.read(w / "dsmoe.yaml").detector.model
    changed = {"ablation": "D", "image_px": model.image_px, "backbone": model.backbone}
    expected = ModelConfig.of_size("nano").model_copy(update=changed)
    assert model == expected.with_tiny_head(tiny)
    assert (4 in model.head_strides) is tiny


@pytest.mark.parametrize(("option", "tiny"), NETWORK)
def test_demo_with_ablation_row_and_head(
    option: str, tiny: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[DemoPlan] = []
    monkeypatch.setattr("pipelines.cli.demo.run", lambda plan, *_, **__: plans.append(plan))
    dsmoe(capsys, "demo", "--ablation", "d", option)
    (plan,) = plans
    assert plan.model.ablation == "D"
    assert (4 in plan.model.head_strides) is tiny


@pytest.mark.parametrize(
    ("options", "start", "encoder"),
    [
        ((), "imagenet-lite", "frozen"),
        (("--encoder", "train"), "imagenet-lite", "train"),
        (("--start", "warm"), "warm", "frozen"),
        (("--start", "scratch"), "scratch", "train"),
        (("--ablation", "b"), "scratch", "train"),
        (("--px", "320"), "imagenet-lite", "frozen"),
        (("--px", "320", "--tiny-head"), "imagenet-lite", "frozen"),
    ],
)
def test_demo_has_the_first_weights_and_the_network_of_init(
    options: tuple[str, ...],
    start: str,
    encoder: str,
    blocks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans: list[DemoPlan] = []
    monkeypatch.setattr("pipelines.cli.demo.run", lambda plan, *_, **__: plans.append(plan))
    dsmoe(capsys, "demo", "--data", blocks, "--minutes", "2", *options)
    demo = plans[0].workspace_settings("demo")
    w = tmp_path / "w"
    labels = ("--annotations", blocks / "train.json", "--unlabelled", "negative")
    dsmoe(capsys, "init", w, "--images", blocks / "images", *labels, *options)
    init = WorkspaceSettings.read(w / "dsmoe.yaml")
    assert (demo.detector.start, demo.detector.training.encoder) == (start, encoder)
    assert (init.detector.start, init.detector.training.encoder) == (start, encoder)
    assert demo.detector.model == init.detector.model
    assert demo.round.minutes == 2


@pytest.mark.parametrize(
    ("options", "strides"),
    [((), (8, 16)), (("--tiny-head",), (4, 8, 16)), (("--no-tiny-head",), (8, 16))],
)
def test_head_strides_are_chosen_unless_an_option_gives_them(
    options: tuple[str, ...],
    strides: tuple[int, ...],
    blocks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All defects are above 40 px in this input."""
    w, files = tmp_path / "w", ("--images", blocks / "images", "--annotations", blocks / "train.json")
    output = dsmoe(capsys, "init", w, *files, "--unlabelled", "negative", "--px", "320", *options)
    assert WorkspaceSettings.read(w / "dsmoe.yaml").detector.model.head_strides == strides
    assert ("the head has no level" in output) is (not options)


@pytest.mark.parametrize(
    ("which", "value"),
    [
        ("http://127.0.0.1:8000/v1", "detector.text_encoder"),
        ("no-such-folder", "no-such-folder"),
        ("/no/such/folder", "/no/such/folder"),
        ("/dev/null", "/dev/null"),
        (".", "config.json"),
    ],
)
def test_init_refuses_an_unknown_text_encoder(
    which: str, value: str, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ["init", tmp_path / "w", "--images", blocks / "images", "--classes", "rust"]
    assert cli.run([*map(str, made), "--text-encoder", which]) == 2
    assert value in capsys.readouterr().err


def test_models_list_shows_the_text_encoder(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_command_out_of_order_is_refused_with_a_remedy(
    blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w = tmp_path / "w"
    dsmoe(capsys, "init", w, "--images", blocks / "images", "--classes", "rust", "--dry-run")
    commands: list[tuple[tuple[str | Path, ...], str]] = [
        (("round", "close", w), "dsmoe round open"),
        (("annotate", w, "--simulated", blocks / "train.json"), "dsmoe round open"),
        (("models", "rollback", w), "no champion"),
        (("services", "status", w), "--dry-run"),
        (("classes", "draft", w), "DSMOE_LLM_URL"),
        (("init", w, "--images", blocks / "images", "--classes", "rust"), str(w)),
        (("benchmark", "speed"), "speed"),
    ]
    for command, value in commands:
        assert cli.run([*map(str, command)]) == 2
        assert value in capsys.readouterr().err


def test_review_samples_have_labels_predictions_and_tags(
    context: object, label: Callable[[object], None], workspace: Workspace
) -> None:
    from pipelines.rounds.loop import close_round, open_round
    from pipelines.services.review import review_samples

    open_round(context)  # type: ignore[arg-type]
    label(context)
    close_round(context)  # type: ignore[arg-type]
    samples = {s.image.key: s for s in review_samples(workspace)}
    assert len(samples) == 17
    sent = {task.key for task in workspace.journal.tasks()}
    for key, sample in samples.items():
        in_test_set = "test set" in sample.tags
        assert (sample.annotations is not None) == (in_test_set or key in sent)
        assert (sample.prediction is not None) == in_test_set  # only the test set is predicted so far
        assert ("seed" in sample.tags) == ("round 0" in sample.tags) == (key in sent)


def test_dataset_name_is_unique_in_a_shared_database(workspace: Workspace, tmp_path: Path) -> None:
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
