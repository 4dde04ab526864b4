"""Connection to an OpenAI-compatible server, such as vLLM.

Used by ``prompts`` for text generation and by ``dsmoe_core.text_encoders`` for embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from dsmoe_core.errors import LanguageModelError, PrerequisiteError
from dsmoe_core.loopback import is_loopback


class OpenAIServer:
    """Connection to one server.

    Args:
        url: base URL of the API, usually ending in /v1.
        api_key: sent to the server and removed from all messages; None if the server needs none.
        timeout_s: timeout of one response, in seconds.
        retries: number of retries after a connection failure or an overload response.

    Attributes:
        url: as given.
        client: the ``openai.OpenAI`` client for requests.

    Raises:
        PrerequisiteError: the package openai (an extra) is not installed.
        LanguageModelError: the URL is invalid or contains a login.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = 120.0, retries: int = 2
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
                "Correct it.",
            )
        if "@" in urlsplit(url).netloc:  # the HTTP library logs URLs
            raise LanguageModelError(
                f"the server's address {_without_login(url)!r} contains a user name or password",
                "Remove them from the address; if the server needs a key, give it as the API key.",
            )
        self.url = url
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

    @contextmanager
    def translated_errors(self, model: str, *, begun: bool = False) -> Iterator[None]:
        """Convert all failures of a request into a :class:`LanguageModelError` without the API key.

        Args:
            model: the requested model, for messages.
            begun: the response has started.

        Raises:
            LanguageModelError: the server cannot be reached, refuses the request, times out, or sends an
                invalid response.
        """
        import openai

        try:
            yield
        except openai.APITimeoutError:
            problem = "stopped sending its response for" if begun else "did not answer within"
            raise LanguageModelError(
                f"{self.url} {problem} {self._timeout_s:g} s",
                "Wait until the server is ready, or set a longer timeout.",
            ) from None
        except openai.APIConnectionError as error:
            if begun:
                raise self.interrupted_error() from None
            cause = self.without_key(str(error.__cause__ or error))
            raise LanguageModelError(
                f"{self.url} cannot be reached: {cause}", "Start the server, or correct its address."
            ) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise LanguageModelError(
                f"{self.url} refused the API key (status {error.status_code})", "Give the right API key."
            ) from None
        except openai.APIStatusError as error:
            message = self.without_key(str(error.message))[:300]
            raise LanguageModelError(
                f"{self.url} refused model {model!r} (status {error.status_code}): {message}",
                "Check the model's name and the server's log.",
            ) from None
        except (openai.OpenAIError, json.JSONDecodeError) as error:
            raise LanguageModelError(
                f"{self.url} sent an invalid response: {self.without_key(str(error))[:300]}",
                "Check that it is an OpenAI-compatible server.",
            ) from None

    def interrupted_error(self) -> LanguageModelError:
        """The error for a response that ended too early."""
        return LanguageModelError(
            f"{self.url} closed the connection in the middle of its response",
            "Check its log, and start it again if it has stopped.",
        )

    def without_key(self, text: str) -> str:
        """The text with the API key masked."""
        return text.replace(self._key, "***") if self._key else text


def _without_login(url: str) -> str:
    """The URL without user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
