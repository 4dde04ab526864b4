"""A real vLLM gives the same vectors as transformers for the same model."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from tiny_language_model import TRAINING_TEXTS, WIDTH

from dsmoe_core.errors import LanguageModelError
from dsmoe_core.text_encoders.pretrained import PretrainedEncoder
from dsmoe_core.text_encoders.server import ServerEncoder

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
WAIT_S = 300


def is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def vllm(language_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a vLLM server with mean pooling; VLLM is the python of its environment."""
    python = os.environ.get("VLLM", "")
    assert Path(python).is_file(), "set VLLM to the python of an environment with vLLM"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "log"
    options = f"--served-model-name tiny --dtype float32 --enforce-eager --max-model-len 512 --port {port}"
    program = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(language_model)]
    pooling = ["--convert", "embed", "--pooler-config", '{"pooling_type": "MEAN"}']
    with log.open("w") as file:
        server = subprocess.Popen(
            [*program, *options.split(), "--host", "127.0.0.1", *pooling],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"},
        )
    deadline = time.monotonic() + WAIT_S
    while not is_healthy(port):
        assert server.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.5)
    yield f"http://127.0.0.1:{port}/v1"
    server.terminate()
    server.wait(60)


def test_vllm_and_transformers_agree(vllm: str, language_model: Path) -> None:
    served = ServerEncoder(vllm, "tiny", batch=2)
    assert served.width == WIDTH
    local = PretrainedEncoder(language_model, dtype="float32", device_map="cpu")
    torch.testing.assert_close(
        served.encode(TRAINING_TEXTS), local.encode(TRAINING_TEXTS), atol=1e-4, rtol=1e-3
    )
    served.close()


def test_model_that_is_not_served_is_refused(vllm: str) -> None:
    other = ServerEncoder(vllm, "other")
    with pytest.raises(LanguageModelError, match=r"'other' \(status 404\)"):
        other.encode(TRAINING_TEXTS)
    other.close()
