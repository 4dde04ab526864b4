"""``dsmoe weights``: installation from a file, from the hub and from an installed package."""

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

from dsmoe_core.checkpoint import read_tensors
from dsmoe_core.efficientnet import weights as efficientnet
from dsmoe_core.errors import PrerequisiteError
from dsmoe_core.mobile_sam.weights import FILE, read_weights
from dsmoe_core.warm_start.checkpoint import require_file
from pipelines import cli
from pipelines.detectors.ds_moe import dsmoe_backend
from pipelines.settings.environment import Environment
from pipelines.training.weights import HUB_FILE, HUB_REPOSITORY, default_start
from pipelines.workspace.workspace import Workspace
from tests.dsmoe_core.mobile_sam.original import random_weights


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like mobile_sam.pt, with random values."""
    path = tmp_path_factory.mktemp("published") / "mobile_sam.pt"
    torch.save(random_weights(), path)
    return path


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No access to the hub. Set on the client, which reads the variables on import."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def weights(capsys: pytest.CaptureFixture[str], *options: str | Path, code: int = 0) -> str:
    """Run the command; returns its output, or its error message where it fails."""
    assert cli.run(["weights", "mobile-sam", *map(str, options)]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_file_is_checked_and_installed(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = weights(capsys, "--from", published, "--to", tmp_path / "new" / "w")
    assert "image_encoder: 292 of 292 tensors match" in output
    assert "mask_decoder: 120 of 120 tensors match" in output
    assert "image_encoder.head.bias" in output
    assert str(tmp_path / "new" / "w" / FILE) in output
    assert len(read_weights(tmp_path / "new" / "w" / FILE)) == 435
    assert [path.name for path in (tmp_path / "new" / "w").iterdir()] == [FILE]


def test_second_run_writes_only_a_changed_source(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights(capsys, "--from", published, "--to", tmp_path)
    written = (tmp_path / FILE).stat().st_mtime_ns
    for options in (("--from", published), ()):
        output = weights(capsys, *options, "--to", tmp_path)
        assert str(published) in output
        assert str(tmp_path / FILE) in output
    assert (tmp_path / FILE).stat().st_mtime_ns == written
    other = tmp_path / "other.pt"
    torch.save(random_weights(seed=1), other)
    weights(capsys, "--from", other, "--to", tmp_path)
    matrix = "prompt_encoder.shared_embedding.positional_embedding"
    theirs = random_weights(seed=1)["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    assert torch.equal(read_weights(tmp_path / FILE)[matrix], theirs)


def test_damaged_weights_are_written_again(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights(capsys, "--from", published, "--to", tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-1])
    weights(capsys, "--from", published, "--to", tmp_path)
    assert len(read_weights(tmp_path / FILE)) == 435


def test_environment_variable_sets_the_folder(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSMOE_WEIGHTS", str(tmp_path / "mine"))
    weights(capsys, "--from", published)
    assert (tmp_path / "mine" / FILE).is_file()


def test_other_network_is_reported_and_refused(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights(capsys, "--from", published, "--to", tmp_path)
    before = (tmp_path / FILE).read_bytes()
    other = tmp_path / "other.pt"
    torch.save({"conv.weight": torch.ones(3)}, other)
    assert cli.run(["weights", "mobile-sam", "--from", str(other), "--to", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "image_encoder: 0 of 292 tensors match" in captured.out
    assert "conv.weight" in captured.out
    assert str(other) in captured.err
    assert captured.err.count("\n") == 1
    assert (tmp_path / FILE).read_bytes() == before


def test_missing_file_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights(capsys, "--from", tmp_path / "no.pt", code=2)


def test_folder_that_cannot_be_created_exits_with_2(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = weights(capsys, "--from", published, "--to", published / "below", code=2)
    assert str(published) in output


def test_read_only_folder_exits_with_2(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "w"
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != folder)  # root may write anywhere
    assert str(folder) in weights(capsys, "--from", published, "--to", folder, code=2)


def test_unreachable_hub_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = weights(capsys, "--to", tmp_path, code=2)
    assert HUB_FILE in output
    assert "--from" in output
    assert output.count("\n") == 1


class Hub(BaseHTTPRequestHandler):
    """Serves one file as the hub does."""

    content: bytes = b""
    breaks = False
    requests: list[str]

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        self._head()
        if not self.breaks:
            self.wfile.write(self.content)

    def _head(self) -> None:
        self.requests.append(self.path)
        self.send_response(200 if self.path == f"/{HUB_REPOSITORY}/resolve/main/{HUB_FILE}" else 404)
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on loopback for the real client."""
    handler = type("OneHub", (Hub,), {"content": published.read_bytes(), "requests": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        template = f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield handler
        server.shutdown()


def test_hub_is_used_once(hub: type[Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = weights(capsys, "--to", tmp_path / "w")
    assert f"{HUB_REPOSITORY}/{HUB_FILE}" in output
    requests = len(hub.requests)
    assert requests >= 1
    weights(capsys, "--to", tmp_path / "w")
    assert len(hub.requests) == requests
    assert len(read_weights(tmp_path / "w" / FILE)) == 435


def test_interrupted_download_leaves_no_file(
    hub: type[Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.breaks = True
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the client's own attempts
    output = weights(capsys, "--to", tmp_path / "w", code=2)
    assert HUB_FILE in output
    assert list((tmp_path / "w").iterdir()) == []


def imagenet_lite(capsys: pytest.CaptureFixture[str], *options: str | Path, code: int = 0) -> str:
    assert cli.run(["weights", "imagenet-lite", *map(str, options)]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_imagenet_weights_come_from_the_installed_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w" / efficientnet.FILE
    assert str(path) in imagenet_lite(capsys, "--to", tmp_path / "w")
    tensors, metadata = read_tensors(path)
    assert (len(tensors), metadata["sha256"]) == (240, efficientnet.SHA256)
    written = path.stat().st_mtime_ns
    imagenet_lite(capsys, "--to", tmp_path / "w")
    assert path.stat().st_mtime_ns == written
    path.write_bytes(path.read_bytes()[:-1])
    imagenet_lite(capsys, "--to", tmp_path / "w")
    assert len(read_tensors(path)[0]) == 240


def test_imagenet_weights_without_the_package_need_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    published = efficientnet.published_file()
    assert published is not None
    monkeypatch.setattr(efficientnet, "PACKAGE", "a-package-that-does-not-exist")
    assert "--from" in imagenet_lite(capsys, "--to", tmp_path, code=2)
    imagenet_lite(capsys, "--to", tmp_path, "--from", published)
    assert (tmp_path / efficientnet.FILE).is_file()


def test_a_package_without_the_file_counts_as_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_start("nano") == "imagenet-lite"
    monkeypatch.setattr(efficientnet, "PUBLISHED", "gone.pth")
    assert default_start("nano") == "warm"
    message = imagenet_lite(capsys, "--to", tmp_path, code=2)
    assert "gone.pth" in message
    assert message.count("\n") == 1


def test_another_file_is_not_taken_for_the_imagenet_weights(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = imagenet_lite(capsys, "--to", tmp_path, "--from", published, code=2)
    assert efficientnet.SHA256 in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def init_imagenet(folder: Path, blocks: Path) -> int:
    files = ["--images", str(blocks / "images"), "--classes", "rust"]
    return cli.run(["init", str(folder), *files, "--start", "imagenet-lite"])


def test_init_installs_the_imagenet_weights_and_other_commands_do_not(
    blocks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSMOE_WEIGHTS", str(tmp_path / "weights"))
    path = tmp_path / "weights" / efficientnet.FILE
    assert init_imagenet(tmp_path / "w", blocks) == 0
    assert len(read_tensors(path)[0]) == 240
    path.unlink()
    with Workspace.open(tmp_path / "w") as workspace:
        assert dsmoe_backend(workspace, Environment.read())._encoder_from == path
    assert not path.exists()
    with pytest.raises(PrerequisiteError):
        require_file(path)


def test_init_without_the_package_of_the_imagenet_weights_is_refused(
    blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSMOE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(efficientnet, "PACKAGE", "a-package-that-does-not-exist")
    assert init_imagenet(tmp_path / "w", blocks) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "w").exists()
