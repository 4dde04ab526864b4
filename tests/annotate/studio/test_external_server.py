"""A Label Studio that somebody else runs: each way in which address or token can be wrong is named."""

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
Answers = dict[str, tuple[int, Any]]  # path -> status and JSON, or text, or where to
VERSION = {"release": "1.23.2", "label-studio-os-package": {}}
GOOD: Answers = {
    "/api/version": (200, VERSION),
    "/api/current-user/whoami": (200, {"id": 1, "email": "a@b.c"}),
}


def personal(days: float) -> str:
    """A personal access token that lasts so long."""
    until = datetime.now(UTC) + timedelta(days=days)
    return jwt.encode({"token_type": "refresh", "exp": until}, "k" * 32)


@contextmanager
def answering(answers: Answers) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers; its address, and what it was asked."""
    asked: list[str] = []

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append(self.path)
            status, said = answers.get(self.path.rstrip("/"), (404, "nothing here"))
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", said)
            self.end_headers()
            self.wfile.write((said if isinstance(said, str) else json.dumps(said)).encode())

        do_POST = do_GET  # noqa: N815  # the name that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refused(answers: Answers, token: str = LEGACY) -> str:
    with answering(GOOD | answers) as (url, _), pytest.raises(StudioError) as caught:
        ExternalServer(url, token, Path("/")).start()
    assert token not in str(caught.value)
    return str(caught.value).replace(url, "URL")


def test_a_good_address_and_token_connect(tmp_path: Path) -> None:
    said: list[str] = []
    with answering(GOOD) as (url, _):
        server = ExternalServer(f"{url}/", f" {LEGACY}\n", tmp_path)
        connection = server.start(said.append)
        assert server.version() == "1.23.2"
    assert connection == Connection(url, "", "", LEGACY, tmp_path)
    assert said == [f"looking at {url}"]
    assert not server.stop()


def test_a_personal_token_is_swapped_for_short_lived_ones_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By our own stopwatch: the server's clock need not agree with ours."""
    stopwatch = iter((0.0, 100.0, 200.0, 200.0, 300.0, 400.0, 400.0))  # looked at once more on each swap
    monkeypatch.setattr(api, "monotonic", lambda: next(stopwatch))
    with answering(GOOD | {"/api/token/refresh": (200, {"access": personal(1)})}) as (url, asked):
        client = Api(Connection(url, "", "", personal(9), Path("/")))
        for _ in range(5):
            with client.client("say who we are") as sdk:
                sdk.users.whoami()
    assert asked.count("/api/token/refresh/") == 3
    assert len(asked) == 8


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (
            {"/api/version": (404, "<html>nothing</html>")},
            "what answers at URL is not Label Studio (status 404)",
        ),
        ({"/api/version": (200, {"release": "7"})}, "what answers at URL is not Label Studio (status 200)"),
        ({"/api/version": (200, ["x"])}, "what answers at URL is not Label Studio (status 200)"),
        ({"/api/version": (301, "https://b.example/")}, "URL sends us on to https://b.example/. Give that"),
    ],
)
def test_what_is_not_label_studio_is_named(answers: Answers, said: str) -> None:
    assert said in refused(answers)


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ("Invalid token.", "URL does not accept our token. Check that this address"),
        (
            "Authentication token no longer valid: legacy token authentication has been disabled for this "
            "organization",
            "URL takes no legacy tokens; its organisation has switched them off. Use a personal access token",
        ),
    ],
)
def test_a_legacy_token_that_is_refused(detail: str, said: str) -> None:
    assert said in refused({"/api/current-user/whoami": (401, {"detail": detail})})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, {"detail": "Token is blacklisted"}), "URL says that our token was revoked. Make a new one"),
        ((401, {"detail": "Token is expired"}), "URL says that our token has expired. Make a new one"),
        ((401, {"detail": "Token is invalid"}), "URL does not accept our token"),
        ((502, "<html>"), "answered with something that cannot be read"),
    ],
)
def test_a_personal_token_that_is_refused(answer: tuple[int, Any], said: str) -> None:
    assert said in refused({"/api/token/refresh": answer}, personal(9))


def test_personal_tokens_that_are_switched_off() -> None:
    answers: Answers = {
        "/api/token/refresh": (200, {"access": personal(1)}),
        "/api/current-user/whoami": (401, {"detail": "Authentication credentials were not provided."}),
    }
    assert "URL takes no personal access tokens; its organisation has" in refused(answers, personal(9))


def test_a_personal_token_past_its_day_is_named_before_it_is_sent() -> None:
    assert "URL says that our token has expired. Make a new one" in refused({}, personal(-1))


@pytest.mark.parametrize("token", ["", "two words", "tökén", "a\nb"])
def test_what_cannot_be_a_token_is_refused(token: str) -> None:
    with pytest.raises(StudioError, match="is empty, or has characters that no token has"):
        ExternalServer("http://127.0.0.1:1", token, Path("/")).start()


def test_a_server_that_is_not_there_is_named(free_port: Callable[[], int]) -> None:
    with pytest.raises(StudioError, match=r"cannot be reached \(ConnectError\)\. Check the address"):
        ExternalServer(f"http://127.0.0.1:{free_port()}", LEGACY, Path("/")).start()


def test_one_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    monkeypatch.setattr(httpx, "get", hang)
    with pytest.raises(StudioError, match="did not answer within 10 s"):
        ExternalServer("http://127.0.0.1:1", LEGACY, Path("/")).start()


def test_a_token_that_travels_in_the_open_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with answering(GOOD) as (url, _):
        ExternalServer(url, LEGACY, Path("/")).start()
        assert caplog.text == ""
        monkeypatch.setattr("annotate.studio.external_server.is_loopback", lambda _: False)
        ExternalServer(url, LEGACY, Path("/")).start()
    assert "is not encrypted" in caplog.text
    assert LEGACY not in caplog.text


@pytest.mark.labelstudio
def test_the_real_one_says_all_this(connection: Connection) -> None:
    """Every sentence, in one test: they switch the organisation's settings to and fro."""

    def post(path: str, token: str = f"Token {connection.token}", **body: Any) -> Any:
        answer = httpx.post(connection.url + path, headers={"Authorization": token}, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def allow(legacy: bool, pat: bool, token: str = f"Token {connection.token}") -> None:
        switches = {"legacy_api_tokens_enabled": legacy, "api_tokens_enabled": pat, "api_token_ttl_days": 9}
        post("/api/jwt/settings", token, **switches)

    def trying(token: str) -> str:
        try:
            return ExternalServer(connection.url, token, connection.document_root).start().url
        except StudioError as error:
            return str(error)

    mine = post("/api/token/")["token"]
    access = f"Bearer {post('/api/token/refresh/', refresh=mine)['access']}"
    assert trying(connection.token) == trying(mine) == connection.url
    assert "does not accept our token" in trying("0" * 40)
    assert "does not accept our token" in trying(f"{mine[:-4]}AAAA")
    allow(legacy=True, pat=False)
    try:
        assert "takes no personal access tokens" in trying(mine)
        assert trying(connection.token) == connection.url
        allow(legacy=False, pat=True)
        assert "takes no legacy tokens" in trying(connection.token)
        assert trying(mine) == connection.url
    finally:
        allow(legacy=True, pat=True, token=access)
    post("/api/token/blacklist/", refresh=mine)
    assert "says that our token was revoked" in trying(mine)
    assert trying(connection.token) == connection.url
