"""Connection to an existing Label Studio server, which dsmoe neither starts nor stops."""

from __future__ import annotations

import logging
from pathlib import Path

import httpx

from annotate.studio.api import Api
from annotate.studio.protocol import Connection
from dsmoe_core.errors import StudioError
from dsmoe_core.loopback import is_loopback
from dsmoe_core.progress import StatusCallback

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 10.0
_ADDRESS_REMEDY = "Give the scheme and host that the browser shows, such as https://labels.example.com."


class ExternalServer:
    """An existing Label Studio server, given by address and token.

    Args:
        url: ``http(s)://HOST[:PORT]``.
        token: a legacy token, or a personal access token, which the client exchanges for short-lived ones.
        document_root: the server's document root for local files. The images are below it.
    """

    def __init__(self, url: str, token: str, document_root: Path) -> None:
        self.url = url.rstrip("/")
        self.document_root = document_root.resolve()
        self._token = token.strip()

    def start(self, progress: StatusCallback | None = None) -> Connection:
        """Check that the address is a running Label Studio that accepts the token. Starts nothing.

        Raises:
            StudioError: the check failed; the message names the reason.
            PrerequisiteError: the SDK is not installed.
        """
        if progress:
            progress(f"connecting to {self.url}")
        if not self._token or not all("!" <= letter <= "~" for letter in self._token):
            raise StudioError(
                f"the token for {self.url} is empty or has invalid characters",
                "Copy it again from the page Account & Settings.",
            )
        self.version()
        connection = Connection(self.url, "", "", self._token, self.document_root)
        with Api(connection).client("sign in") as sdk:
            sdk.users.whoami()
        if self.url.startswith("http:") and not is_loopback(self.url):
            log.warning("%s is not encrypted: others on the network can read the token; use https", self.url)
        return connection

    def stop(self) -> bool:
        """Do nothing, because other people use the server. Returns False: nothing was stopped."""
        return False

    def version(self) -> str:
        """Version of the Label Studio server, such as ``1.23.2``.

        Raises:
            StudioError: the server cannot be reached, or is not Label Studio.
        """
        response = self._get_version()
        if response.is_redirect:
            raise StudioError(
                f"{self.url} redirects to {response.headers.get('location')}", "Use that address instead."
            )
        try:
            content = response.json()
        except ValueError:
            content = None
        if not isinstance(content, dict) or not any(name.startswith("label-studio") for name in content):
            raise StudioError(
                f"the server at {self.url} is not Label Studio (status {response.status_code})",
                _ADDRESS_REMEDY,
            )
        return str(content.get("release", "of unknown version"))

    def _get_version(self) -> httpx.Response:
        url = f"{self.url}/api/version"
        try:
            return httpx.get(url, timeout=_TIMEOUT_SECONDS, trust_env=not is_loopback(self.url))
        except httpx.TimeoutException as error:
            raise StudioError(
                f"{self.url} did not respond within {_TIMEOUT_SECONDS:.0f} s",
                "Check the address, and whether the server hangs.",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise StudioError(
                f"Label Studio at {self.url} cannot be reached ({type(error).__name__})",
                "Check the address, and whether the server runs.",
            ) from error
