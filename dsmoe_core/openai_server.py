"""A server that speaks the OpenAI protocol (vLLM, for one): the connection, and its failures in one line.

Two rooms ask such servers: ``prompts`` for texts, ``dsmoe_core.text_encoders`` for embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from dsmoe_core.errors import LanguageModelError, PrerequisiteError
from dsmoe_core.loopback import is_loopback


class OpenAIServer:
    """The connection to one server.

    Args:
        url: of the API, usually ending in /v1.
        api_key: sent to the server, never shown in a message; None where it wants none.
        timeout_s: for one reply.
        retries: of a request that failed on its way or by overload.

    Attributes:
        url: as it was given.
        client: the ``openai.OpenAI`` to ask.

    Raises:
        PrerequisiteError: the package openai, an extra, is missing.
        LanguageModelError: the address is none, or has a login in it.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = 120.0, retries: int = 2
    ) -> None:
        try:
            from openai import DefaultHttpxClient, OpenAI  # an extra, so imported where it is needed
        except ImportError:
            raise PrerequisiteError(
                "the package openai is missing", "Install it: pip install 'dsmoe[llm]'."
            ) from None
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise LanguageModelError(
                f"the server's address is {_without_login(url)!r}; expected http://HOST:PORT/v1",
                "Correct it.",
            )
        if "@" in urlsplit(url).netloc:  # the HTTP library writes addresses into its log
            raise LanguageModelError(
                f"the server's address {_without_login(url)!r} was given with a login in it",
                "Give the login as the API key instead.",
            )
        self.url = url
        self._key = api_key
        self._timeout_s = timeout_s
        self.client = OpenAI(
            base_url=url,
            api_key=api_key or "none",
            timeout=timeout_s,
            max_retries=retries,
            # A proxy from the environment cannot reach this machine's own servers.
            http_client=DefaultHttpxClient(trust_env=not is_loopback(url), timeout=timeout_s),
        )

    def close(self) -> None:
        """Gives the connections back."""
        self.client.close()

    @contextmanager
    def translated_errors(self, model: str, *, begun: bool = False) -> Iterator[None]:
        """Around a request to this model: whatever goes wrong is one of our errors, without the key in it.

        Args:
            begun: the answer is on its way already.

        Raises:
            LanguageModelError: the server cannot be reached, refuses, takes too long, or talks nonsense.
        """
        import openai

        try:
            yield
        except openai.APITimeoutError:
            silent = "fell silent in its answer for" if begun else "did not answer within"
            raise LanguageModelError(
                f"{self.url} {silent} {self._timeout_s:g} s",
                "Wait until the server is ready, or allow it more time.",
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
            said = self.without_key(str(error.message))[:300]
            raise LanguageModelError(
                f"{self.url} refused model {model!r} (status {error.status_code}): {said}",
                "Check the model's name and the server's log.",
            ) from None
        except (openai.OpenAIError, json.JSONDecodeError) as error:
            raise LanguageModelError(
                f"{self.url} answered what is no reply: {self.without_key(str(error))[:300]}",
                "Check that it is an OpenAI-compatible server.",
            ) from None

    def interrupted_error(self) -> LanguageModelError:
        """What to say of an answer without an end."""
        return LanguageModelError(
            f"{self.url} broke off in the middle of its answer",
            "See its log whether it still runs; start it again if it does not.",
        )

    def without_key(self, text: str) -> str:
        """The text without the API key in it."""
        return text.replace(self._key, "***") if self._key else text


def _without_login(url: str) -> str:
    """The address without a user name or password in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
