"""Wrapper around the Label Studio SDK: sign-in, raw requests, and one-line errors without secrets."""

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

_MAX_BODY_CHARS = 400
_SIGN_IN_SECONDS = 120.0
"""Sign in again after this time. Access tokens last 5 minutes by the server's clock, which may differ."""
_REVOKED_REMEDY = "Create a new token under Account & Settings and set DSMOE_STUDIO_TOKEN to it."
_SETTINGS_REMEDY = "enable them under Organization, Access Token Settings"
# Text in the body of a 401 response -> problem and remedy.
_UNAUTHORIZED = (
    ("legacy token authentication has been disabled",
     "does not accept legacy tokens: they are disabled for the organisation",
     f"Use a personal access token, or {_SETTINGS_REMEDY}."),
    ("credentials were not provided",
     "does not accept personal access tokens: they are disabled for the organisation",
     f"Use a legacy token, or {_SETTINGS_REMEDY}."),
    ("blacklisted", "reports that the token was revoked", _REVOKED_REMEDY),
    ("expired", "reports that the token has expired", _REVOKED_REMEDY),
    ("", "does not accept the token", "Check that the token belongs to the server at this address."),
)  # fmt: skip


class Api:
    """Client of one Label Studio server.

    Args:
        connection: address and token.
        timeout: seconds until a request fails as timed out.
    """

    def __init__(self, connection: Connection, *, timeout: float = 120.0) -> None:
        self._connection = connection
        # No keep-alive: nothing needs closing, and a new connection on loopback is cheap.
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=5.0),
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=not is_loopback(connection.url),
        )
        self._sdk: tuple[float, Sdk] | None = None  # time of the sign-in (local clock) and the client

    @staticmethod
    def is_up(url: str) -> bool:
        """Whether a Label Studio server at this address reports that it is up."""
        try:
            response = httpx.get(f"{url}/health", timeout=5.0, trust_env=not is_loopback(url))
            return response.status_code == httpx.codes.OK and response.json().get("status") == "UP"
        except (httpx.HTTPError, ValueError):
            return False

    @contextmanager
    def client(self, action: str, *, ignore_conflict: bool = False) -> Iterator[Sdk]:
        """Context manager that yields the SDK client and converts its errors.

        Args:
            action: what the request does, for the error message: "Label Studio refused to ACTION".
            ignore_conflict: treat a 409 response as success. Use it for objects with a unique id, which the
                server already has after a retry.

        Raises:
            StudioError: the server refused the request, timed out or cannot be reached.
            PrerequisiteError: the SDK is not installed.
        """
        _require_sdk()
        from label_studio_sdk.core.api_error import ApiError
        from label_studio_sdk.core.parse_error import ParsingError

        try:
            yield self._signed_in()
        except (ApiError, ParsingError) as error:
            if not (ignore_conflict and error.status_code == httpx.codes.CONFLICT):
                # The text of the SDK's error holds a session cookie: do not show or chain it.
                raise self._error(action, error.status_code, error.body) from None
        except json.JSONDecodeError:  # from the exchange of a personal access token
            raise self._error(action, httpx.codes.OK, None) from None
        except httpx.TimeoutException as error:
            raise StudioError(
                f"Label Studio at {self._connection.url} did not respond in time to the request to {action}",
                "Check its log. Restart the server if it hangs.",
            ) from error
        except httpx.HTTPError as error:
            raise StudioError(
                f"Label Studio at {self._connection.url} cannot be reached ({type(error).__name__})",
                "Start it, then run this again.",
            ) from error

    def request(self, action: str, method: str, path: str, *, params: Any = None, body: Any = None) -> Any:
        """Send one raw request. Building the SDK's objects for thousands of tasks is slower than the server.

        Args:
            action: see ``client``.
            body: sent as JSON.

        Returns:
            The JSON of the response; None for an empty response.

        Raises:
            StudioError, PrerequisiteError: see ``client``.
        """
        with self.client(action) as sdk:
            from label_studio_sdk.core.api_error import ApiError

            response = sdk._client_wrapper.httpx_client.request(
                path,
                method=method,
                params=params,
                content=None if body is None else json.dumps(body).encode(),
                headers={"content-type": "application/json"},
            )
            try:
                content = response.json() if response.content else None
            except ValueError:
                raise ApiError(status_code=response.status_code, body=response.text) from None
            if not response.is_success:
                raise ApiError(status_code=response.status_code, body=content)
            return content

    def _signed_in(self) -> Sdk:
        """The SDK client. A personal access token is exchanged again every ``_SIGN_IN_SECONDS``."""
        from label_studio_sdk import LabelStudio as Sdk

        if self._sdk is None or monotonic() - self._sdk[0] > _SIGN_IN_SECONDS:
            client = Sdk(
                base_url=self._connection.url,
                api_key=self._connection.token,
                httpx_client=self._http,
                max_retries=0,  # the SDK would retry a 409, and an import that may have been stored
            )
            self._sdk = (monotonic(), client)
        return self._sdk[1]

    def _error(self, action: str, status: int | None, body: Any) -> StudioError:
        if status is not None and httpx.codes.is_success(status):
            return StudioError(
                f"Label Studio sent an unreadable response to the request to {action}",
                "Check that the address is that of Label Studio.",
            )
        text = self._body_text(body)
        if status == httpx.codes.UNAUTHORIZED:
            problem, remedy = next((p, r) for part, p, r in _UNAUTHORIZED if part in text)
            return StudioError(f"Label Studio at {self._connection.url} {problem}", remedy)
        remedy = "Correct the value that the message names, then run this again."
        if status == httpx.codes.NOT_FOUND:
            remedy = "It was deleted. Open the round again to send the missing images."
        elif status is not None and httpx.codes.is_server_error(status):
            remedy = "Check the server's log, then run this again."
        return StudioError(f"Label Studio refused to {action} ({status}): {text}", remedy)

    def _body_text(self, body: Any) -> str:
        """The body of an error response: one line, shortened, without the connection's secrets."""
        content = body
        if isinstance(body, dict):
            content = body.get("validation_errors") or body.get("detail") or body
        text = content if isinstance(content, str) else json.dumps(content, default=str)
        if text.lstrip().startswith("<"):
            return "the response is an HTML page"
        for secret in filter(None, (self._connection.token, self._connection.password)):
            text = text.replace(secret, "***")
        return " ".join(text.split())[:_MAX_BODY_CHARS]


def _require_sdk() -> None:
    try:
        import label_studio_sdk  # noqa: F401  # imported here because the import takes four seconds
    except ModuleNotFoundError as error:
        raise PrerequisiteError(
            f"the package {error.name} is not installed",
            "Install the extra: `pip install 'dsmoe[annotate]'`.",
        ) from error
