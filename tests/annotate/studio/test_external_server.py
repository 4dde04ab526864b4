"""Tests of connecting to an existing server: every wrong address or token is reported."""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from annotate.studio import api
from annotate.studio.api import Api
from annotate.studio.external_server import ExternalServer
from annotate.studio.protocol import Connection
from dsmoe_core.errors import StudioError

LEGACY = "a" * 40
Responses = dict[str, tuple[int, Any]]  # path -> status and JSON, text or redirect
VERSION = {"release": "1.23.2", "label-studio-os-package": {}}
GOOD: Responses = {
    "/api/version": (200, VERSION),
    "/api/current-user/whoami": (200, {"id": 1, "email": "a@b.c"}),
}


def personal(days: float) -> str:
    """A personal access token that expires after a number of days."""
    expiry = datetime.now(UTC) + timedelta(days=days)
    return jwt.encode({"token_type": "refresh", "exp": expiry}, "k" * 32)


@contextmanager
def serve(responses: Responses) -> Iterator[tuple[str, list[str]]]:
    """A server with fixed responses. Yields its address and the list of requested paths."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            paths.append(self.path)
            status, content = responses.get(self.path.rstrip("/"), (404, "nothing here"))
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", content)
            self.end_headers()
            self.wfile.write((content if isinstance(content, str) else json.dumps(content)).encode())

        do_POST = do_GET  # noqa: N815  # the name that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", paths
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refusal(responses: Responses, token: str = LEGACY) -> str:
    """Error message for a server with these responses."""
    with serve(GOOD | responses) as (url, _), pytest.raises(StudioError) as caught:
        ExternalServer(url, token, Path("/")).start()
    assert token not in str(caught.value)
    return str(caught.value).replace(url, "URL")


def test_valid_address_and_token_give_a_connection(tmp_path: Path) -> None:
    messages: list[str] = []
    with serve(GOOD) as (url, _):
        server = ExternalServer(f"{url}/", f" {LEGACY}\n", tmp_path)
        connection = server.start(messages.append)
        assert server.version() == "1.23.2"
    assert connection == Connection(url, "", "", LEGACY, tmp_path)
    assert len(messages) == 1
    assert url in messages[0]
    assert not server.stop()


def test_personal_access_token_is_exchanged_again_after_two_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the local clock: the server's clock may differ."""
    times = iter((0.0, 100.0, 200.0, 200.0, 300.0, 400.0, 400.0))  # read twice at each exchange
    monkeypatch.setattr(api, "monotonic", lambda: next(times))
    with serve(GOOD | {"/api/token/refresh": (200, {"access": personal(1)})}) as (url, paths):
        client = Api(Connection(url, "", "", personal(9), Path("/")))
        for _ in range(5):
            with client.client("get the user") as sdk:
                sdk.users.whoami()
    assert paths.count("/api/token/refresh/") == 3
    assert len(paths) == 8


@pytest.mark.parametrize(
    ("responses", "text"),
    [
        (
            {"/api/version": (404, "<html>nothing</html>")},
            "URL is not Label Studio (status 404)",
        ),
        ({"/api/version": (200, {"release": "7"})}, "URL is not Label Studio (status 200)"),
        ({"/api/version": (200, ["x"])}, "URL is not Label Studio (status 200)"),
        ({"/api/version": (301, "https://b.example/")}, "https://b.example/"),
    ],
)
def test_other_server_is_refused(responses: Responses, text: str) -> None:
    assert text in refusal(responses)


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ("Invalid token.", "does not accept the token"),
        (
            "Authentication token no longer valid: legacy token authentication has been disabled for this "
            "organization",
            "Use a personal access token",
        ),
    ],
)
def test_legacy_token_is_refused(detail: str, text: str) -> None:
    assert text in refusal({"/api/current-user/whoami": (401, {"detail": detail})})


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ((401, {"detail": "Token is blacklisted"}), "revoked"),
        ((401, {"detail": "Token is expired"}), "expired"),
        ((401, {"detail": "Token is invalid"}), "does not accept the token"),
        ((502, "<html>"), "unreadable"),
    ],
)
def test_personal_access_token_is_refused(response: tuple[int, Any], text: str) -> None:
    assert text in refusal({"/api/token/refresh": response}, personal(9))


def test_disabled_personal_access_tokens_are_reported() -> None:
    responses: Responses = {
        "/api/token/refresh": (200, {"access": personal(1)}),
        "/api/current-user/whoami": (401, {"detail": "Authentication credentials were not provided."}),
    }
    assert "Use a legacy token" in refusal(responses, personal(9))


def test_expired_personal_access_token_is_reported() -> None:
    assert "expired" in refusal({}, personal(-1))


@pytest.mark.parametrize("token", ["", "two words", "tökén", "a\nb"])
def test_malformed_token_is_refused(token: str) -> None:
    with pytest.raises(StudioError, match=r"127\.0\.0\.1:1"):
        ExternalServer("http://127.0.0.1:1", token, Path("/")).start()


def test_unreachable_server_is_reported(free_port: Callable[[], int]) -> None:
    with pytest.raises(StudioError, match="ConnectError"):
        ExternalServer(f"http://127.0.0.1:{free_port()}", LEGACY, Path("/")).start()


def test_hanging_server_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    monkeypatch.setattr(httpx, "get", hang)
    with pytest.raises(StudioError, match="10 s"):
        ExternalServer("http://127.0.0.1:1", LEGACY, Path("/")).start()


def test_unencrypted_token_gives_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with serve(GOOD) as (url, _):
        ExternalServer(url, LEGACY, Path("/")).start()
        assert caplog.text == ""
        monkeypatch.setattr("annotate.studio.external_server.is_loopback", lambda _: False)
        ExternalServer(url, LEGACY, Path("/")).start()
    assert "https" in caplog.text
    assert LEGACY not in caplog.text


@pytest.mark.labelstudio
def test_token_errors_of_a_real_server(connection: Connection) -> None:
    """All cases in one test, because they change the settings of the organisation."""

    def post(path: str, token: str = f"Token {connection.token}", **body: Any) -> Any:
        response = httpx.post(connection.url + path, headers={"Authorization": token}, json=body)
        assert response.is_success, response.text
        return response.json() if response.content else None

    def allow(legacy: bool, pat: bool, token: str = f"Token {connection.token}") -> None:
        settings = {"legacy_api_tokens_enabled": legacy, "api_tokens_enabled": pat, "api_token_ttl_days": 9}
        post("/api/jwt/settings", token, **settings)

    def connect(token: str) -> str:
        """The address on success, else the error message."""
        try:
            return ExternalServer(connection.url, token, connection.document_root).start().url
        except StudioError as error:
            return str(error)

    personal_token = post("/api/token/")["token"]
    access = f"Bearer {post('/api/token/refresh/', refresh=personal_token)['access']}"
    assert connect(connection.token) == connect(personal_token) == connection.url
    assert "does not accept the token" in connect("0" * 40)
    assert "does not accept the token" in connect(f"{personal_token[:-4]}AAAA")
    allow(legacy=True, pat=False)
    try:
        assert "does not accept personal access tokens" in connect(personal_token)
        assert connect(connection.token) == connection.url
        allow(legacy=False, pat=True)
        assert "does not accept legacy tokens" in connect(connection.token)
        assert connect(personal_token) == connection.url
    finally:
        allow(legacy=True, pat=True, token=access)
    post("/api/token/blacklist/", refresh=personal_token)
    assert "revoked" in connect(personal_token)
    assert connect(connection.token) == connection.url
