"""A tiny language model, an embeddings server, and text encoders of all kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from embeddings_server import EmbeddingsServer
from tiny_language_model import write_language_model

from dsmoe_core.text_encoders.pretrained import PretrainedEncoder
from dsmoe_core.text_encoders.protocol import TextEncoder
from dsmoe_core.text_encoders.sentence import SentenceEncoder
from dsmoe_core.text_encoders.server import ServerEncoder


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all tests: do not change it."""
    return write_language_model(tmp_path_factory.mktemp("language-model"))


@pytest.fixture
def server() -> Iterator[EmbeddingsServer]:
    with EmbeddingsServer() as server:
        yield server


@pytest.fixture(params=["minilm", "transformers", "server"])
def fresh(
    request: pytest.FixtureRequest, language_model: Path, server: EmbeddingsServer
) -> Iterator[Callable[[], TextEncoder]]:
    """Makes a new encoder that is not loaded yet."""
    connected: list[ServerEncoder] = []

    def make() -> TextEncoder:
        if request.param == "minilm":
            return SentenceEncoder()
        if request.param == "transformers":
            return PretrainedEncoder(language_model, dtype="float32", device_map="cpu", batch=2)
        connected.append(ServerEncoder(server.url, "tiny", batch=2))
        return connected[-1]

    yield make
    for encoder in connected:
        encoder.close()
