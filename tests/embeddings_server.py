"""OpenAI-compatible embeddings server on loopback."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from openai_server import OpenAIServer, Reply

WIDTH = 24


def embedding(text: str) -> list[float]:
    """Pseudo-random vector of a text; not normalized."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return [float(x) for x in np.random.default_rng(seed).normal(3.0, 1.0, WIDTH)]


def embeddings_reply(body: dict[str, Any]) -> Reply:
    """A valid response; its rows are in reverse order, which the protocol allows."""
    rows = [
        {"object": "embedding", "index": i, "embedding": embedding(t)} for i, t in enumerate(body["input"])
    ]
    return 200, {"object": "list", "model": body["model"], "data": rows[::-1], "usage": {"total_tokens": 1}}


class EmbeddingsServer(OpenAIServer):
    """Sends valid responses until its ``reply`` is replaced."""

    def __init__(self) -> None:
        super().__init__(embeddings_reply)
