"""``dsmoe weights mobile-sam``: from a file or the hub to weights in place, once."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from dsmoe_core.mobile_sam.weights import FILE, read_weights
from pipelines import cli
from pipelines.training.weights import HUB_FILE, HUB_REPOSITORY
from tests.dsmoe_core.mobile_sam.original import random_weights


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mobile_sam.pt, but for its values."""
    path = tmp_path_factory.mktemp("published") / "mobile_sam.pt"
    torch.save(random_weights(), path)
    return path


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's client reads its variables when it is imported, perhaps before the tests set them."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def weights(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0) -> str:
    """What the command prints; its only line of complaint where it fails."""
    assert cli.run(["weights", "mobile-sam", *map(str, words)]) == code
    shown = capsys.readouterr()
    return shown.out if code == 0 else shown.err


def test_a_file_is_checked_and_kept(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = weights(capsys, "--from", published, "--to", tmp_path / "new" / "w")
    assert "image_encoder: 292 of 292 tensors match" in shown
    assert "mask_decoder: 120 of 120 tensors match" in shown
    assert "image_encoder.head.bias" in shown
    assert f"kept at {tmp_path / 'new' / 'w' / FILE}" in shown
    assert len(read_weights(tmp_path / "new" / "w" / FILE)) == 435
    assert [path.name for path in (tmp_path / "new" / "w").iterdir()] == [FILE]


def test_a_second_run_does_nothing_unless_the_source_changed(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights(capsys, "--from", published, "--to", tmp_path)
    written = (tmp_path / FILE).stat().st_mtime_ns
    for words in (("--from", published), ()):
        shown = weights(capsys, *words, "--to", tmp_path)
        assert shown == f"MobileSAM from {published}: already at {tmp_path / FILE}\n"
    assert (tmp_path / FILE).stat().st_mtime_ns == written
    other = tmp_path / "other.pt"
    torch.save(random_weights(seed=1), other)
    assert "kept at" in weights(capsys, "--from", other, "--to", tmp_path)
    matrix = "prompt_encoder.shared_embedding.positional_embedding"
    theirs = random_weights(seed=1)["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    assert torch.equal(read_weights(tmp_path / FILE)[matrix], theirs)


def test_torn_weights_are_made_anew(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights(capsys, "--from", published, "--to", tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-1])
    assert "kept at" in weights(capsys, "--from", published, "--to", tmp_path)
    assert len(read_weights(tmp_path / FILE)) == 435


def test_the_environment_says_where(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSMOE_WEIGHTS", str(tmp_path / "mine"))
    weights(capsys, "--from", published)
    assert (tmp_path / "mine" / FILE).is_file()


def test_another_network_is_reported_and_refused(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights(capsys, "--from", published, "--to", tmp_path)
    before = (tmp_path / FILE).read_bytes()
    other = tmp_path / "other.pt"
    torch.save({"conv.weight": torch.ones(3)}, other)
    assert cli.run(["weights", "mobile-sam", "--from", str(other), "--to", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert "image_encoder: 0 of 292 tensors match" in shown.out
    assert "unknown: conv.weight" in shown.out
    assert shown.err.startswith(f"error: {other} is not MobileSAM")
    assert shown.err.count("\n") == 1
    assert (tmp_path / FILE).read_bytes() == before


def test_a_file_that_is_not_there_is_the_user_s_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = weights(capsys, "--from", tmp_path / "no.pt", code=2)
    assert "does not exist" in " ".join(shown.replace("│", " ").split())


def test_a_folder_that_cannot_be_made_is_the_user_s_mistake(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = weights(capsys, "--from", published, "--to", published / "below", code=2)
    assert "cannot be written (Not a directory). Give a folder of yours with --to or DSMOE_WEIGHTS" in shown


def test_a_folder_without_permission_is_the_user_s_mistake(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "w"
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != folder)  # we may be root
    assert "(no permission)" in weights(capsys, "--from", published, "--to", folder, code=2)


def test_without_the_hub_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = weights(capsys, "--to", tmp_path, code=2)
    assert shown.startswith(f"error: {HUB_FILE} cannot be fetched from {HUB_REPOSITORY}")
    assert shown.endswith("Download it elsewhere and pass it with --from FILE.\n")
    assert shown.count("\n") == 1


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as one file needs."""

    content: bytes = b""
    breaks = False
    asked: list[str]

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        self._head()
        if not self.breaks:
            self.wfile.write(self.content)

    def _head(self) -> None:
        self.asked.append(self.path)
        self.send_response(200 if self.path == f"/{HUB_REPOSITORY}/resolve/main/{HUB_FILE}" else 404)
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on loopback, which the real client talks to."""
    handler = type("OneHub", (Hub,), {"content": published.read_bytes(), "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        template = f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield handler
        server.shutdown()


def test_the_hub_is_asked_once(hub: type[Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = weights(capsys, "--to", tmp_path / "w")
    assert f"MobileSAM from {HUB_REPOSITORY}/{HUB_FILE}: kept at" in shown
    asked = len(hub.asked)
    assert asked >= 1
    assert "already at" in weights(capsys, "--to", tmp_path / "w")
    assert len(hub.asked) == asked
    assert len(read_weights(tmp_path / "w" / FILE)) == 435


def test_a_download_that_breaks_off_leaves_nothing(
    hub: type[Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.breaks = True
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the client's own attempts
    shown = weights(capsys, "--to", tmp_path / "w", code=2)
    assert "error: mobile_sam.pt cannot be fetched" in shown
    assert list((tmp_path / "w").iterdir()) == []
