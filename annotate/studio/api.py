"""Label Studio's HTTP interface: one call, checked; every fault becomes one line that holds no secret.

Plain httpx and not the vendor's client: that one takes four seconds to import (pandas, boto3, paramiko),
prints the session cookie with every error, and turns the JSON into models that we would turn back.
"""

from __future__ import annotations

import json
from typing import Any

import httpx

from annotate.studio.protocol import Connection
from dsmoe_core.errors import StudioError

_ANSWER_CHARS = 400


class Api:
    """Calls with our token.

    Args:
        timeout: seconds until a call counts as hung.
    """

    def __init__(self, connection: Connection, *, timeout: float = 120.0) -> None:
        self._connection = connection
        # Connections are not kept: there is then nothing to close, and on loopback a new one costs nothing.
        self._http = httpx.Client(
            base_url=connection.url,
            headers={"Authorization": f"Token {connection.token}"},
            timeout=httpx.Timeout(timeout, connect=5.0),
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,  # a proxy for the outside would swallow loopback
        )

    @staticmethod
    def is_up(url: str) -> bool:
        """Whether a Label Studio at this address says that it is up."""
        try:
            answer = httpx.get(f"{url}/health", timeout=5.0, trust_env=False)
            return answer.status_code == httpx.codes.OK and answer.json().get("status") == "UP"
        except (httpx.HTTPError, ValueError):
            return False

    def get(self, path: str, **params: str | int) -> Any:
        """Raises: StudioError, as all calls here."""
        return self._call("GET", path, params=params)

    def post(self, path: str, body: Any, **params: str | int) -> Any:
        return self._call("POST", path, body=body, params=params)

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, body=body)

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def post_once(self, path: str, body: Any) -> bool:
        """Post what carries an identity of its own; False where the server has it already (409)."""
        return self._call("POST", path, body=body, have_it=True) is not None

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: dict[str, str | int] | None = None,
        have_it: bool = False,
    ) -> Any:
        try:
            answer = self._http.request(method, path, json=body, params=params)
        except httpx.TimeoutException as error:
            raise StudioError(
                f"Label Studio at {self._connection.url} did not answer {method} {path} in time",
                "Look at its log; start it again if it hangs.",
            ) from error
        except httpx.HTTPError as error:
            raise StudioError(
                f"Label Studio at {self._connection.url} cannot be reached ({type(error).__name__})",
                "Start it, then run this again.",
            ) from error
        if have_it and answer.status_code == httpx.codes.CONFLICT:
            return None
        if answer.is_error:
            of = f" (project {params['project']})" if params and "project" in params else ""
            raise self._refused(method, path + of, answer)
        try:
            return answer.json() if answer.content else {}
        except ValueError as error:
            raise StudioError(
                f"Label Studio answered {method} {path} with something that is no JSON",
                "Check that the address is Label Studio's.",
            ) from error

    def _refused(self, method: str, path: str, answer: httpx.Response) -> StudioError:
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            return StudioError(
                f"Label Studio at {self._connection.url} does not accept our token",
                "Check that this address is the server whose credentials these are.",
            )
        return StudioError(
            f"Label Studio refused {method} {path} with {answer.status_code}: {self._said(answer)}",
            "Correct what it names, then run this again.",
        )

    def _said(self, answer: httpx.Response) -> str:
        """The server's own words, short, on one line, without our secrets."""
        try:
            body = answer.json()
            words = body.get("validation_errors") or body.get("detail") or body
            text = words if isinstance(words, str) else json.dumps(words)
        except (ValueError, AttributeError):
            text = answer.text
        for secret in (self._connection.token, self._connection.password):
            text = text.replace(secret, "***")
        return " ".join(text.split())[:_ANSWER_CHARS]
