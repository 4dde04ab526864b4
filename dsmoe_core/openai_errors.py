"""Failed requests to an OpenAI-compatible server as errors with a remedy that fits the cause."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dsmoe_core.errors import LanguageModelError

if TYPE_CHECKING:
    import openai

MAX_MESSAGE = 300
"""Most characters of a server's message in an error."""
_CONTEXT_LENGTH = re.compile(
    r"context.{0,20}(length|window|size)|max_model_len|too many tokens", re.IGNORECASE
)
_RESPONSE_FORMAT = re.compile(r"response_format|json_schema|guided|structured output", re.IGNORECASE)
_NO_BUDGET_CODES = ("insufficient_quota", "billing_hard_limit_reached")


class SettingNames(NamedTuple):
    """Names of the settings of a server, which remedies tell the user to change."""

    address: str
    key: str
    model: str
    timeout: str


LANGUAGE_MODEL = SettingNames(
    address="--llm or DSMOE_LLM_URL",
    key="DSMOE_LLM_API_KEY",
    model="--model or DSMOE_LLM_MODEL",
    timeout="DSMOE_LLM_TIMEOUT_S",
)
EMBEDDINGS = SettingNames(
    address="detector.text_encoder.url",
    key="DSMOE_EMBEDDINGS_API_KEY",
    model="detector.text_encoder.model",
    timeout="detector.text_encoder.timeout_s",
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a server.

    Attributes:
        url: base URL of the server.
        model: requested model; None for a request for the list of models.
        timeout_s: timeout of the response.
        names: names of the server's settings.
        key: API key, which is masked in messages; None if none was sent.
        served: names of the models on the server; None where it cannot list them.
        begun: the response has started.
    """

    url: str
    model: str | None
    timeout_s: float
    names: SettingNames
    key: str | None
    served: Callable[[], Sequence[str] | None]
    begun: bool = False

    @property
    def title(self) -> str:
        """What was requested, for messages."""
        return "the list of models" if self.model is None else f"a request for model {self.model!r}"

    def without_key(self, text: str) -> str:
        """The text with the API key masked."""
        return text.replace(self.key, "***") if self.key else text


def timeout_error(request: Request) -> LanguageModelError:
    """The error for a response that did not come, or stopped, within the timeout."""
    problem = "stopped sending its response for" if request.begun else "did not answer within"
    return LanguageModelError(
        f"{request.url} {problem} {request.timeout_s:g} s",
        f"Wait until the server is ready, raise {request.names.timeout}, or serve a smaller model.",
    )


def connection_error(request: Request, cause: str) -> LanguageModelError:
    """The error for a server that cannot be reached, or for a connection that broke."""
    if request.begun:
        return interrupted_error(request.url)
    remedy = f"Start the server, or correct {request.names.address}."
    if "SSL" in cause or "certificate" in cause.lower():
        remedy = f"Check whether {request.names.address} has to start with http:// or with https://."
    return LanguageModelError(f"{request.url} cannot be reached: {request.without_key(cause)}", remedy)


def interrupted_error(url: str) -> LanguageModelError:
    """The error for a response that ended too early."""
    return LanguageModelError(
        f"{url} closed the connection in the middle of its response",
        "Read the server's log, and start it again if it has stopped.",
    )


def web_page_error(request: Request) -> LanguageModelError:
    """The error for a response that is a web page."""
    return LanguageModelError(
        f"{request.url} answered with a web page; expected the address of an API, http://HOST:PORT/v1",
        f"Correct {request.names.address}: it usually ends in /v1.",
    )


def invalid_response_error(request: Request, detail: str) -> LanguageModelError:
    """The error for a response that is not of the protocol."""
    return LanguageModelError(
        f"{request.url} sent an invalid response: {request.without_key(detail)[:MAX_MESSAGE]}",
        "Check that it is an OpenAI-compatible server and that its address ends in /v1.",
    )


def stream_error(error: openai.APIError, request: Request) -> LanguageModelError:
    """The error that a server reported within its response."""
    message = request.without_key(str(error.message))[:MAX_MESSAGE]
    return LanguageModelError(
        f"{request.url} failed while it answered {request.title}: {message}",
        "Read the server's log; if its memory is full, serve a smaller model or a shorter context.",
    )


def status_error(error: openai.APIStatusError, request: Request) -> LanguageModelError:
    """The error for a response with a status of 400 and above."""
    status, text = error.status_code, error.response.text
    if is_web_page(text):
        if status < 500:
            return web_page_error(request)
        text = " ".join(re.sub(r"<[^>]*>", " ", text).split())
        problem = f"{request.url} cannot reach its model (status {status}): {text[:MAX_MESSAGE]}"
        return LanguageModelError(request.without_key(problem), "Start the server behind this address.")
    message = request.without_key(_server_message(error))[:MAX_MESSAGE]
    if status in (401, 403):
        problem = "refused the API key" if request.key else "needs an API key"
        return LanguageModelError(
            f"{request.url} {problem} (status {status})", f"Set {request.names.key} to a key of this server."
        )
    verb = "refused" if status < 500 else "failed on"
    return LanguageModelError(
        f"{request.url} {verb} {request.title} (status {status}): {message}",
        _status_remedy(error, message, request),
    )


def is_web_page(text: str) -> bool:
    """Whether a response is HTML."""
    return text.lstrip().startswith("<")


def _status_remedy(error: openai.APIStatusError, message: str, request: Request) -> str:
    """What to do about a response with a status of 400 and above, other than a web page or a refused key."""
    status = error.status_code
    if status == 404:
        return _not_found_remedy(request)
    if status == 429:
        if error.code in _NO_BUDGET_CODES:
            return "Check the plan and the budget of the API key's account."
        wait = error.response.headers.get("retry-after", "")
        until = f"Wait {wait} s" if wait.isdigit() else "Wait a minute"
        return f"{until}, then run the same command again; it continues where it stopped."
    if status in (503, 529):
        return "The server is overloaded or still loads its model: wait, then run the same command again."
    if status >= 500:
        return "Read the server's log, and start it again if it has stopped."
    if error.code == "context_length_exceeded" or _CONTEXT_LENGTH.search(message):
        return (
            "Shorten the notes and descriptions, limit the reasoning with DSMOE_LLM_THINKING_TOKENS, or "
            "serve the model with a longer context."
        )
    if _RESPONSE_FORMAT.search(message):
        return "Use a server that supports response_format with a JSON schema, such as vLLM."
    return f"Check {request.names.model}, and read the server's log."


def _not_found_remedy(request: Request) -> str:
    served = None if request.model is None else request.served()
    if served is None:
        return f"Correct {request.names.address}: it usually ends in /v1."
    if request.model in served:
        return f"The server has this model, but not for this kind of request; check {request.names.model}."
    names = ", ".join(map(repr, served[:9])) or "no model"
    return f"Set {request.names.model}; the server has {names}."


def _server_message(error: openai.APIStatusError) -> str:
    """The message in a response, whose key depends on the server."""
    content: Any = error.body
    for key in ("error", "message", "detail"):
        if isinstance(content, dict) and content.get(key):
            content = content[key]
    return content if isinstance(content, str) else json.dumps(content)
