"""Text encoder on an OpenAI-compatible server, such as vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, FiniteFloat, ValidationError
from torch import Tensor

from dsmoe_core.errors import LanguageModelError
from dsmoe_core.openai_errors import EMBEDDINGS, is_web_page, web_page_error
from dsmoe_core.openai_server import OpenAIServer


class _Row(BaseModel):
    index: int
    embedding: list[FiniteFloat]


class _EmbeddingsResponse(BaseModel):
    data: list[_Row]


class ServerEncoder:
    """A model behind ``URL/embeddings``. The server pools; vectors are normalized to unit length here.

    To pool as the paper does, start vLLM with ``--convert embed --pooler-config '{"pooling_type": "MEAN"}'``.
    The server's model name identifies weights and pooling: if another model is served under the same name,
    the cache of text vectors must be emptied.

    Args:
        url: base URL of the API, usually ending in /v1.
        model: name of the model on the server.
        api_key: sent to the server and removed from all messages; None if the server needs none.
        timeout_s: timeout of one request, in seconds.
        batch: texts per request.
        retries: number of retries after a connection failure or an overload response.
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
        return OpenAIServer(url, names=EMBEDDINGS, api_key=api_key, timeout_s=timeout_s, retries=retries)

    @cached_property
    def width(self) -> int:
        """Length of a vector; requests one embedding on first use.

        Raises:
            LanguageModelError: see ``encode``.
        """
        return self._request(["width"]).shape[1]

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        """One unit vector per text, in order.

        Raises:
            PrerequisiteError: the package openai is missing.
            LanguageModelError: the server cannot be reached, refuses the request, times out, or does not
                return one vector of the expected width per text.
        """
        vectors = [torch.zeros(0, self.width)]
        for first in range(0, len(texts), self._batch):
            group = texts[first : first + self._batch]
            embeddings = self._request(group)
            if embeddings.shape[1] != self.width:
                raise self._invalid_response(
                    f"vectors of width {embeddings.shape[1]}; expected {self.width}, as before"
                )
            vectors.append(embeddings)
        return torch.cat(vectors)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def _request(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        """Send one request."""
        with self._server.translated_errors(self._model):
            raw = self._server.client.embeddings.with_raw_response.create(
                model=self._model, input=list(texts), encoding_format="float"
            )
        if is_web_page(raw.content.decode(errors="replace")):
            raise web_page_error(self._server.request(self._model))
        try:
            rows = _EmbeddingsResponse.model_validate_json(raw.content).data
        except ValidationError as error:
            raise self._invalid_response("no embeddings") from error
        rows = sorted(rows, key=lambda row: row.index)
        if [row.index for row in rows] != list(range(len(texts))):
            raise self._invalid_response(f"{len(rows)} vectors; expected one for each of {len(texts)} texts")
        widths = sorted({len(row.embedding) for row in rows})
        if len(widths) > 1 or widths == [0]:
            raise self._invalid_response(f"vectors of widths {widths}; expected one width")
        vectors = torch.tensor([row.embedding for row in rows])
        if not vectors.norm(dim=-1).gt(0).all():
            raise self._invalid_response("a vector of zeros")
        return F.normalize(vectors, dim=-1)

    def _invalid_response(self, content: str) -> LanguageModelError:
        return LanguageModelError(
            f"{self._server.url} answered for model {self._model!r} with {content}",
            "Check that the server serves this model for embeddings.",
        )
