"""Connection to an OpenAI-compatible server, such as vLLM.

Used by ``prompts`` for text generation and by ``dsmoe_core.text_encoders`` for embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from dsmoe_core import openai_errors
from dsmoe_core.errors import LanguageModelError, PrerequisiteError
from dsmoe_core.loopback import is_loopback
from dsmoe_core.openai_errors import Request, SettingNames


class OpenAIServer:
    """Connection to one server.

    Args:
        url: base URL of the API, usually ending in /v1.
        names: names of the server's settings, for messages.
        api_key: sent to the server and removed from all messages; None if the server needs none.
        timeout_s: timeout of one response, in seconds.
        retries: number of retries after a connection failure or an overload response. A response that asks
            for a delay of up to a minute is repeated after it, one that asks for a longer one is an error.

    Attributes:
        url: as given.
        client: the ``openai.OpenAI`` client for requests.

    Raises:
        PrerequisiteError: the package openai (an extra) is not installed.
        LanguageModelError: the URL is invalid or contains a login.
    """

    def __init__(
        self,
        url: str,
        *,
        names: SettingNames,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        retries: int = 2,
    ) -> None:
        try:
            from openai import DefaultHttpxClient, OpenAI  # an optional dependency
        except ImportError:
            raise PrerequisiteError(
                "the package openai is missing", "Install it: pip install 'dsmoe[llm]'."
            ) from None
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise LanguageModelError(
                f"the server's address is {_without_login(url)!r}; expected http://HOST:PORT/v1",
                f"Correct {names.address}.",
            )
        if "@" in urlsplit(url).netloc:  # the HTTP library logs URLs
            raise LanguageModelError(
                f"the server's address {_without_login(url)!r} contains a user name or password",
                f"Remove them from the address; if the server needs a key, set {names.key}.",
            )
        self.url = url
        self._names = names
        self._key = api_key
        self._timeout_s = timeout_s
        self.client = OpenAI(
            base_url=url,
            api_key=api_key or "none",
            timeout=timeout_s,
            max_retries=retries,
            # A proxy from the environment cannot reach servers on this machine.
            http_client=DefaultHttpxClient(trust_env=not is_loopback(url), timeout=timeout_s),
        )

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def served(self) -> list[str]:
        """Names of the models on the server.

        Raises:
            LanguageModelError: see ``translated_errors``.
        """
        request = self.request(None)
        with self.translated_errors(None):
            raw = self.client.models.with_raw_response.list()
        text = raw.content.decode(errors="replace")
        if openai_errors.is_web_page(text):
            raise openai_errors.web_page_error(request)
        try:
            return [str(model["id"]) for model in json.loads(text).get("data") or ()]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise openai_errors.invalid_response_error(
                request, "the address /models has no list of models"
            ) from None

    @contextmanager
    def translated_errors(self, model: str | None, *, begun: bool = False) -> Iterator[None]:
        """Convert all failures of a request into a :class:`LanguageModelError` without the API key.

        Args:
            model: the requested model, for messages; None for the list of models.
            begun: the response has started.

        Raises:
            LanguageModelError: the server cannot be reached, refuses the request, times out, or sends an
                invalid response.
        """
        import openai

        request = self.request(model, begun=begun)
        try:
            yield
        except openai.APITimeoutError:
            raise openai_errors.timeout_error(request) from None
        except openai.APIConnectionError as error:
            raise openai_errors.connection_error(request, str(error.__cause__ or error)) from None
        except openai.APIStatusError as error:
            raise openai_errors.status_error(error, request) from None
        except openai.APIResponseValidationError as error:
            raise openai_errors.invalid_response_error(request, str(error)) from None
        except openai.APIError as error:
            raise openai_errors.stream_error(error, request) from None
        except (openai.OpenAIError, json.JSONDecodeError) as error:
            raise openai_errors.invalid_response_error(request, str(error)) from None

    def request(self, model: str | None, *, begun: bool = False) -> Request:
        """A request to this server, for messages."""
        return Request(
            self.url, model, self._timeout_s, self._names, self._key, self._served_or_none, begun=begun
        )

    def _served_or_none(self) -> list[str] | None:
        try:
            return self.served()
        except LanguageModelError:
            return None


def _without_login(url: str) -> str:
    """The URL without user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
