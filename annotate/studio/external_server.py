"""A Label Studio that somebody else runs: looked at before anything is sent, never started or stopped."""

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

_LOOK_S = 10.0
_THE_ADDRESS = "Give the address that the browser shows, up to the first path: https://labels.example.com."


class ExternalServer:
    """Finds a Label Studio by its address and a token.

    Args:
        url: ``http(s)://HOST[:PORT]``.
        token: a legacy token, or a personal access token, which the client exchanges for short-lived ones.
        document_root: the folder that this server may show local files from; the images lie below it.
    """

    def __init__(self, url: str, token: str, document_root: Path) -> None:
        self.url = url.rstrip("/")
        self.document_root = document_root.resolve()
        self._token = token.strip()

    def start(self, progress: StatusCallback | None = None) -> Connection:
        """Check that it answers, is Label Studio, and takes our token.

        Raises:
            StudioError: it does not; the sentence says which.
            PrerequisiteError: the client is not installed.
        """
        if progress:
            progress(f"looking at {self.url}")
        if not self._token or not all("!" <= letter <= "~" for letter in self._token):
            raise StudioError(
                f"the token for {self.url} is empty, or has characters that no token has",
                "Copy it again from the page Account & Settings.",
            )
        self.version()
        connection = Connection(self.url, "", "", self._token, self.document_root)
        with Api(connection).client("sign us in") as sdk:
            sdk.users.whoami()
        if self.url.startswith("http:") and not is_loopback(self.url):
            log.warning("%s is not encrypted: the token can be read on the way; prefer https", self.url)
        return connection

    def stop(self) -> bool:
        """Leaves it alone: others work with it; says that nothing was stopped."""
        return False

    def version(self) -> str:
        """Which Label Studio it is, such as ``1.23.2``.

        Raises:
            StudioError: it cannot be reached, or is something else.
        """
        answer = self._ask()
        if answer.is_redirect:
            raise StudioError(
                f"{self.url} sends us on to {answer.headers.get('location')}", "Give that address instead."
            )
        try:
            progress = answer.json()
        except ValueError:
            progress = None
        if not isinstance(progress, dict) or not any(name.startswith("label-studio") for name in progress):
            raise StudioError(
                f"what answers at {self.url} is not Label Studio (status {answer.status_code})", _THE_ADDRESS
            )
        return str(progress.get("release", "of unknown version"))

    def _ask(self) -> httpx.Response:
        try:
            return httpx.get(f"{self.url}/api/version", timeout=_LOOK_S, trust_env=not is_loopback(self.url))
        except httpx.TimeoutException as error:
            raise StudioError(
                f"{self.url} did not answer within {_LOOK_S:.0f} s",
                "Check the address, and whether it hangs.",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise StudioError(
                f"Label Studio at {self.url} cannot be reached ({type(error).__name__})",
                "Check the address, and whether it runs.",
            ) from error
