"""Mistakes of users on the real command line: an error of one line, exit code 2, no traceback."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ports import taken_port

from annotate.studio.environment import LOCK

pytestmark = pytest.mark.slow  # a process for each command
ROOT = Path(__file__).resolve().parents[2]


class Dsmoe:
    """Runs the command line in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, *arguments: str | Path, max_bytes: int | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        def limit() -> None:
            if max_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))

        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=limit,
        )

    def refused(self, *arguments: str | Path, max_bytes: int | None = None, **variables: str) -> str:
        """The one line of the error message."""
        done = self(*arguments, max_bytes=max_bytes, **variables)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("error: ")
        return line


@pytest.fixture
def dsmoe(tmp_path: Path) -> Dsmoe:
    return Dsmoe(tmp_path)


@pytest.fixture
def edited(blocks: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """Writes a changed copy of train.json."""

    def edit(change: Callable[[dict[str, Any]], None]) -> Path:
        content = json.loads((blocks / "train.json").read_text())
        change(content)
        path = tmp_path / "edited.json"
        path.write_text(json.dumps(content))
        return path

    return edit


def test_missing_folder_is_refused(dsmoe: Dsmoe, tmp_path: Path, blocks: Path) -> None:
    assert "photos" in dsmoe.refused("init", "w", "--images", "photos", "--classes", "a")
    assert not (tmp_path / "w").exists()
    line = dsmoe.refused("demo", "--data", blocks / "images", "--dry-run")
    assert "images/images" in line
    assert "nowhere" in dsmoe.refused("status", "nowhere")


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"images": []}'])
def test_json_that_is_not_coco_is_refused(dsmoe: Dsmoe, tmp_path: Path, blocks: Path, text: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    line = dsmoe.refused("init", "w", "--images", blocks / "images", "--annotations", "labels.json")
    assert "labels.json" in line


def test_class_that_is_not_in_the_class_book_is_refused(dsmoe: Dsmoe, blocks: Path) -> None:
    labels = ("--annotations", blocks / "train.json")
    line = dsmoe.refused("init", "w", "--images", blocks / "images", *labels, "--classes", "rust,brick")
    assert "plum" in line


def test_box_outside_its_image_is_named_and_the_others_are_taken(
    dsmoe: Dsmoe, blocks: Path, edited: Any
) -> None:
    def outside(content: dict[str, Any]) -> None:
        content["annotations"][0]["bbox"] = [90, 90, 40, 10]

    done = dsmoe("init", "w", "--images", blocks / "images", "--annotations", edited(outside))
    assert done.returncode == 0, done.stderr
    assert "train-000.png" in done.stdout


def test_port_in_use_is_refused_with_the_process(dsmoe: Dsmoe, tmp_path: Path, blocks: Path) -> None:
    with taken_port() as port:
        line = dsmoe.refused("demo", "--data", blocks, "--budget", "2", "--port", str(port))
    assert f"port {port}" in line
    assert "--port" in line
    assert f"process {os.getpid()}" in line


def test_label_studio_that_does_not_start_is_reported(dsmoe: Dsmoe, tmp_path: Path, blocks: Path) -> None:
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
    line = dsmoe.refused(
        "demo", "--data", blocks, "--budget", "2", "--port", port, DSMOE_ENVIRONMENTS=environments
    )
    assert "label-studio.log" in line


@pytest.mark.parametrize("max_bytes", [100, 70_000])
def test_command_continues_after_the_disk_was_full(dsmoe: Dsmoe, blocks: Path, max_bytes: int) -> None:
    """A limit on file sizes takes the place of a full disk."""
    arguments = ("demo", "--data", blocks, "--budget", "2", "--dry-run")
    assert "full" in dsmoe.refused(*arguments, max_bytes=max_bytes)
    assert dsmoe(*arguments).returncode == 0


def test_result_that_does_not_fit_on_the_disk_is_reported(dsmoe: Dsmoe, blocks: Path) -> None:
    arguments = ("demo", "--data", blocks, "--budget", "2", "--rounds", "0", "--dry-run", "--json")
    line = dsmoe.refused(*arguments, "/dev/full")
    assert "/dev/full" in line
    done = dsmoe(*arguments, "/dev/stdout")
    assert done.returncode == 0
    assert '"rounds": [' in done.stdout


def test_wrong_options_and_variables_are_refused(dsmoe: Dsmoe, blocks: Path) -> None:
    line = dsmoe.refused("demo", "--data", blocks, "--images-seen", "many", "--dry-run")
    assert "images_seen" in line
    line = dsmoe.refused("demo", "--data", blocks, "--dry-run", DSMOE_LMM_URL="x")
    assert "DSMOE_LMM_URL" in line
