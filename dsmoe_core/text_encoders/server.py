"""Embeddings from a server that speaks the OpenAI protocol, such as vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, FiniteFloat, ValidationError
from torch import Tensor

from dsmoe_core.errors import LanguageModelError
from dsmoe_core.openai_server import OpenAIServer


class _Row(BaseModel):
    index: int
    embedding: list[FiniteFloat]


class _Answer(BaseModel):
    data: list[_Row]


class ServerEncoder:
    """One model behind ``URL/embeddings``; the server pools, and its vectors are brought to unit length here.

    To pool as the paper does, start vLLM with ``--convert embed --pooler-config '{"pooling_type": "MEAN"}'``.
    The name that the server gives its model stands for weights and pooling: who serves others under
    the same name must empty the cache.

    Args:
        url: of the API, usually ending in /v1.
        model: as the server names it.
        api_key: sent to the server, never shown in a message; None where it wants none.
        timeout_s: for one batch.
        batch: texts in one request.
        retries: of a request that failed on its way or by overload.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        batch: int = 64,
        retries: int = 2,
    ) -> None:
        self.name = f"{model}/server/unit"
        self._model = model
        self._batch = batch
        self._connection = (url, api_key, timeout_s, retries)

    @cached_property
    def _server(self) -> OpenAIServer:
        url, api_key, timeout_s, retries = self._connection
        return OpenAIServer(url, api_key=api_key, timeout_s=timeout_s, retries=retries)

    @cached_property
    def width(self) -> int:
        """The server is asked for one embedding, once.

        Raises:
            LanguageModelError: see ``encode``.
        """
        return self._ask(["width"]).shape[1]

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        """One unit vector a text, in order.

        Raises:
            PrerequisiteError: the package openai is missing.
            LanguageModelError: the server cannot be reached, refuses, takes too long, or answers with
                anything but one vector of the known width for each text.
        """
        vectors = [torch.zeros(0, self.width)]
        for first in range(0, len(texts), self._batch):
            group = texts[first : first + self._batch]
            answer = self._ask(group)
            if answer.shape[1] != self.width:
                raise self._nonsense(f"vectors {answer.shape[1]} wide; expected {self.width}, as before")
            vectors.append(answer)
        return torch.cat(vectors)

    def close(self) -> None:
        """Gives the connections back."""
        self._server.close()

    def _ask(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        """One request."""
        with self._server.translated_errors(self._model):
            raw = self._server.client.embeddings.with_raw_response.create(
                model=self._model, input=list(texts), encoding_format="float"
            )
        try:
            rows = _Answer.model_validate_json(raw.content).data
        except ValidationError as error:
            raise self._nonsense("no embeddings") from error
        rows = sorted(rows, key=lambda row: row.index)
        if [row.index for row in rows] != list(range(len(texts))):
            raise self._nonsense(f"{len(rows)} vectors; expected one for each of {len(texts)} texts")
        widths = sorted({len(row.embedding) for row in rows})
        if len(widths) > 1 or widths == [0]:
            raise self._nonsense(f"vectors of widths {widths}; expected one width")
        vectors = torch.tensor([row.embedding for row in rows])
        if not vectors.norm(dim=-1).gt(0).all():
            raise self._nonsense("a vector of zeros")
        return F.normalize(vectors, dim=-1)

    def _nonsense(self, what: str) -> LanguageModelError:
        return LanguageModelError(
            f"{self._server.url} answered for model {self._model!r} with {what}",
            "Check that the server serves this model for embeddings.",
        )
