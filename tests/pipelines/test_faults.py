"""What users get wrong, through the real command line: one clear line, exit 2, no traceback."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from annotate.studio.environment import LOCK

ROOT = Path(__file__).resolve().parents[2]


class Dsmoe:
    """Runs the command line in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, *words: str | Path, max_bytes: int | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        def limit() -> None:
            if max_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))

        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *map(str, words)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=limit,
        )

    def refuses(self, *words: str | Path, max_bytes: int | None = None, **variables: str) -> str:
        """The one line of a refusal."""
        done = self(*words, max_bytes=max_bytes, **variables)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("error: ")
        return line


@pytest.fixture
def dsmoe(tmp_path: Path) -> Dsmoe:
    return Dsmoe(tmp_path)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


@pytest.fixture
def edited(blocks: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """A copy of train.json with something changed."""

    def edit(change: Callable[[dict[str, Any]], None]) -> Path:
        content = json.loads((blocks / "train.json").read_text())
        change(content)
        path = tmp_path / "edited.json"
        path.write_text(json.dumps(content))
        return path

    return edit


def test_a_missing_folder(dsmoe: Dsmoe, tmp_path: Path, blocks: Path) -> None:
    assert "photos is not there" in dsmoe.refuses("init", "w", "--images", "photos", "--classes", "a")
    assert not (tmp_path / "w").exists()
    line = dsmoe.refuses("demo", "--data", blocks / "images", "--dry-run")
    assert "images/images is not there; a data folder holds images/, train.json and val.json" in line
    assert "no workspace" in dsmoe.refuses("status", "nowhere")


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"images": []}'])
def test_json_that_is_no_coco(dsmoe: Dsmoe, tmp_path: Path, blocks: Path, text: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    line = dsmoe.refuses("init", "w", "--images", blocks / "images", "--annotations", "labels.json")
    assert "labels.json" in line


def test_a_class_that_the_class_book_lacks(dsmoe: Dsmoe, blocks: Path) -> None:
    labels = ("--annotations", blocks / "train.json")
    line = dsmoe.refuses("init", "w", "--images", blocks / "images", *labels, "--classes", "rust,brick")
    assert "plum" in line


def test_a_box_outside_its_image(dsmoe: Dsmoe, blocks: Path, edited: Any) -> None:
    def outside(content: dict[str, Any]) -> None:
        content["annotations"][0]["bbox"] = [90, 90, 40, 10]

    line = dsmoe.refuses("init", "w", "--images", blocks / "images", "--annotations", edited(outside))
    assert "train-000.png" in line
    assert "outside" in line


def test_a_port_in_use(dsmoe: Dsmoe, tmp_path: Path, blocks: Path, taken_port: int) -> None:
    line = dsmoe.refuses("demo", "--data", blocks, "--budget", "2", "--port", str(taken_port))
    assert f"port {taken_port}" in line
    assert "--port" in line


def test_label_studio_that_does_not_start(dsmoe: Dsmoe, tmp_path: Path, blocks: Path) -> None:
    identity = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    program = tmp_path / "environments" / f"label-studio-{identity}" / "bin" / "label-studio"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'database is broken'; exit 3\n")
    program.chmod(0o755)
    (program.parents[1] / "READY").touch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environments = str(tmp_path / "environments")
    line = dsmoe.refuses(
        "demo", "--data", blocks, "--budget", "2", "--port", port, DSMOE_ENVIRONMENTS=environments
    )
    assert "Label Studio ended while it was starting" in line
    assert "label-studio.log" in line


@pytest.mark.parametrize("max_bytes", [100, 70_000])
def test_a_disk_that_is_full(dsmoe: Dsmoe, blocks: Path, max_bytes: int) -> None:
    """A limit on file sizes stands in for the disk: the journal and the detections do not get through it."""
    words = ("demo", "--data", blocks, "--budget", "2", "--dry-run")
    assert "full" in dsmoe.refuses(*words, max_bytes=max_bytes)
    assert dsmoe(*words).returncode == 0  # with room again, the same command goes on


def test_a_result_that_does_not_fit_on_the_disk(dsmoe: Dsmoe, blocks: Path) -> None:
    words = ("demo", "--data", blocks, "--budget", "2", "--rounds", "0", "--dry-run", "--json")
    line = dsmoe.refuses(*words, "/dev/full")
    assert "disk full: /dev/full could not be written" in line
    shown = dsmoe(*words, "/dev/stdout")
    assert shown.returncode == 0
    assert '"rounds": [' in shown.stdout


def test_wrong_options_and_variables_are_named(dsmoe: Dsmoe, blocks: Path) -> None:
    line = dsmoe.refuses("demo", "--data", blocks, "--images-seen", "many", "--dry-run")
    assert "images_seen" in line
    line = dsmoe.refuses("demo", "--data", blocks, "--dry-run", DSMOE_LMM_URL="x")
    assert "DSMOE_LMM_URL is not known" in line
