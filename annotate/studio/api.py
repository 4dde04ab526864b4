"""Label Studio's own client, set up for loopback; every fault becomes one line that holds no secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

import httpx

from annotate.studio.protocol import Connection
from dsmoe_core.errors import PrerequisiteError, StudioError
from dsmoe_core.loopback import is_loopback

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio as Sdk

_ANSWER_CHARS = 400
_SIGNED_IN_S = 120.0  # access tokens last 5 minutes by the server's clock, which ours need not agree with
_MINT_ANOTHER = "Make a new one on the page Account & Settings, and set DSMOE_STUDIO_TOKEN to it."
_SWITCH = "switch these on under Organization, Access Token Settings"
# What the server says with a 401 -> what that means, and what to do.
_REFUSALS = (
    ("legacy token authentication has been disabled",
     "takes no legacy tokens; its organisation has switched them off",
     f"Use a personal access token, or {_SWITCH}."),
    ("credentials were not provided",
     "takes no personal access tokens; its organisation has switched them off",
     f"Use a legacy token, or {_SWITCH}."),
    ("blacklisted", "says that our token was revoked", _MINT_ANOTHER),
    ("expired", "says that our token has expired", _MINT_ANOTHER),
    ("", "does not accept our token", "Check that this address is the server whose token this is."),
)  # fmt: skip


class Api:
    """The client, signed in with our token.

    Args:
        timeout: seconds until a call counts as hung.
    """

    def __init__(self, connection: Connection, *, timeout: float = 120.0) -> None:
        self._connection = connection
        # Connections are not kept: there is then nothing to close, and on loopback a new one costs nothing.
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=5.0),
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=not is_loopback(connection.url),
        )
        self._client: tuple[float, Sdk] | None = None  # signed in when, by our own clock

    @staticmethod
    def is_up(url: str) -> bool:
        """Whether a Label Studio at this address says that it is up."""
        try:
            answer = httpx.get(f"{url}/health", timeout=5.0, trust_env=not is_loopback(url))
            return answer.status_code == httpx.codes.OK and answer.json().get("status") == "UP"
        except (httpx.HTTPError, ValueError):
            return False

    @contextmanager
    def client(self, what: str, *, once: bool = False) -> Iterator[Sdk]:
        """Gives the client; its faults name what it was asked to do.

        Args:
            what: goes on from "Label Studio refused to".
            once: what is sent has an identity of its own: where the server has it already (409), all is well.

        Raises:
            StudioError: the server refuses, hangs or is gone.
            PrerequisiteError: the client is not installed.
        """
        _need_client()
        from label_studio_sdk.core.api_error import ApiError
        from label_studio_sdk.core.parse_error import ParsingError

        try:
            yield self._signed_in()
        except (ApiError, ParsingError) as error:
            if not (once and error.status_code == httpx.codes.CONFLICT):
                # Its text holds the headers, and so a session cookie: neither shown nor chained.
                raise self._refused(what, error.status_code, error.body) from None
        except json.JSONDecodeError:  # in exchange for a personal access token
            raise self._refused(what, httpx.codes.OK, None) from None
        except httpx.TimeoutException as error:
            raise StudioError(
                f"Label Studio at {self._connection.url} was asked to {what} and did not answer in time",
                "See its log; start it again if it hangs.",
            ) from error
        except httpx.HTTPError as error:
            raise StudioError(
                f"Label Studio at {self._connection.url} cannot be reached ({type(error).__name__})",
                "Start it, then run this again.",
            ) from error

    def request(self, what: str, method: str, path: str, *, params: Any = None, body: Any = None) -> Any:
        """One call past the client's own objects, for thousands of tasks: those take longer than the server.

        Args:
            what: goes on from "Label Studio refused to".
            body: sent as JSON.

        Returns:
            The answer's JSON; None where it is empty.

        Raises:
            StudioError, PrerequisiteError: see client.
        """
        with self.client(what) as sdk:
            from label_studio_sdk.core.api_error import ApiError

            answer = sdk._client_wrapper.httpx_client.request(
                path,
                method=method,
                params=params,
                content=None if body is None else json.dumps(body).encode(),
                headers={"content-type": "application/json"},
            )
            try:
                said = answer.json() if answer.content else None
            except ValueError:
                raise ApiError(status_code=answer.status_code, body=answer.text) from None
            if not answer.is_success:
                raise ApiError(status_code=answer.status_code, body=said)
            return said

    def _signed_in(self) -> Sdk:
        """The client; with a personal access token it signs in anew every few minutes."""
        from label_studio_sdk import LabelStudio as Sdk

        if self._client is None or monotonic() - self._client[0] > _SIGNED_IN_S:
            client = Sdk(
                base_url=self._connection.url,
                api_key=self._connection.token,
                httpx_client=self._http,
                max_retries=0,  # it would repeat an answer of 409, and an import that may have been stored
            )
            self._client = (monotonic(), client)
        return self._client[1]

    def _refused(self, what: str, status: int | None, body: Any) -> StudioError:
        if status is not None and httpx.codes.is_success(status):
            return StudioError(
                f"Label Studio was asked to {what} and answered with something that cannot be read",
                "Check that the address is Label Studio's.",
            )
        if status == httpx.codes.UNAUTHORIZED:
            said = self._said(body)
            problem, remedy = next((p, r) for words, p, r in _REFUSALS if words in said)
            return StudioError(f"Label Studio at {self._connection.url} {problem}", remedy)
        remedy = "Correct what it names, then run this again."
        if status == httpx.codes.NOT_FOUND:
            remedy = "Somebody has deleted it; open the round again to send out what is missing."
        elif status is not None and httpx.codes.is_server_error(status):
            remedy = "See its log, then run this again."
        return StudioError(f"Label Studio refused to {what} ({status}): {self._said(body)}", remedy)

    def _said(self, body: Any) -> str:
        """The server's own words, short, on one line, without our secrets."""
        words = body
        if isinstance(body, dict):
            words = body.get("validation_errors") or body.get("detail") or body
        text = words if isinstance(words, str) else json.dumps(words, default=str)
        if text.lstrip().startswith("<"):
            return "it sent a page for people"
        for secret in filter(None, (self._connection.token, self._connection.password)):
            text = text.replace(secret, "***")
        return " ".join(text.split())[:_ANSWER_CHARS]


def _need_client() -> None:
    try:
        import label_studio_sdk  # noqa: F401  # here, for it takes four seconds
    except ModuleNotFoundError as error:
        raise PrerequisiteError(
            f"the package {error.name} is not installed",
            "Install the extra: `pip install 'dsmoe[annotate]'`.",
        ) from error
