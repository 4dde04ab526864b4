"""The rules a machine can check: who may import whom, sizes, names, docstrings, the environment."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("annotate", "dsmoe_core", "pipelines", "prompts", "ui")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
LONGER_FUNCTIONS = {"forward": 100, "fit": 100}
ROOMS_WITHOUT_A_NAME = {"util", "utils", "helper", "helpers", "misc", "common"}
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
(TORCH_FREE,) = [contract for contract in CONTRACTS if "torch" in contract.get("forbidden_modules", [])]

# A decision taken from a variable is taken in one file. The other only hands settings on.
TOUCH_THE_ENVIRONMENT = {
    "pipelines/settings.py": "the one reader",
    "annotate/review/server.py": "FiftyOne takes its settings from the environment and from nowhere else",
}

# Split, so that this file does not name what it forbids.
REGISTRY_HOSTS = re.compile(
    r"\b(?:pypi\.(?:org|python)|files\.python"
    r"hosted|registry\.(?:npm|yarn)|(?:deb|security|ftp)\.debian|archive\.ubuntu|crates\.io"
    r"|conda\.anaconda|download\.py"
    r"torch|hugging"
    r"face\.co/\S+/resolve/)"
)
MACHINE_PATHS = re.compile(r"(?<![\w.~*])/(?:work|root|home/\w+)/")
BARE_TYPE_IGNORE = re.compile(r"#\s*type:\s*ignore(?!\[)|#\s*mypy:\s*ignore-errors")


def tracked() -> list[Path]:
    """The files of the repository, new ones that git does not ignore included."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return [path for name in sorted(filter(None, listed.split("\0"))) if (path := ROOT / name).is_file()]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


FILES = tracked()
PYTHON = [path for path in FILES if path.suffix == ".py"]
SHIPPED = [path for path in PYTHON if named(path).split("/")[0] in PACKAGES]
DOCUMENTED = [path for path in SHIPPED if named(path).split("/")[0] in ("dsmoe_core", "pipelines")]
each = pytest.mark.parametrize


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def text(path: Path) -> str:
    """What a file says; nothing for one that is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_the_tree_is_seen() -> None:
    assert {named(path).split("/")[0] for path in SHIPPED} == set(PACKAGES)
    assert ROOT / "requirements.lock" in FILES


def test_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout), done.stdout


def test_people_s_rooms_and_shared_words_reach_no_torch() -> None:
    """One fresh interpreter imports them all and says which one brought the torch stack in."""
    promised, stack = TORCH_FREE["source_modules"], TORCH_FREE["forbidden_modules"]
    modules = [name for name in map(module, SHIPPED) if any(f"{name}.".startswith(f"{p}.") for p in promised)]
    assert {"annotate", "prompts", "dsmoe_core.schema"} <= set(modules)
    program = (
        "import importlib, json, sys\n"
        "brought = {}\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    new = [m for m in {stack!r} if m in sys.modules and m not in sum(brought.values(), [])]\n"
        "    brought.update({name: new} if new else {})\n"
        "print(json.dumps(brought))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}


@each("path", PYTHON, ids=named)
def test_file_is_short_and_its_room_has_a_name(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES
    assert not {path.stem, *path.relative_to(ROOT).parts[:-1]} & ROOMS_WITHOUT_A_NAME


@each("path", PYTHON, ids=named)
def test_functions_are_short(path: Path) -> None:
    lengths = {
        f"{f.name}:{f.lineno}": (f.name, (f.end_lineno or f.lineno) - f.lineno + 1) for f in functions(path)
    }
    long = {
        place: lines
        for place, (name, lines) in lengths.items()
        if lines > LONGER_FUNCTIONS.get(name, MAX_FUNCTION_LINES)
    }
    assert long == {}


@each("path", PYTHON, ids=named)
def test_type_errors_are_ignored_by_their_code(path: Path) -> None:
    assert BARE_TYPE_IGNORE.findall(path.read_text()) == []


def test_no_registry_host_and_no_path_of_one_machine() -> None:
    found = {
        f"{named(path)}:{number}": line.strip()[:100]
        for path in FILES
        for number, line in enumerate(text(path).splitlines(), start=1)
        if REGISTRY_HOSTS.search(line) or MACHINE_PATHS.search(line)
    }
    assert found == {}


@each(
    "line",
    ["see https://pypi" + ".org/simple", "curl https://download.py" + "torch.org/whl", "/work" + "/data"],
)
def test_hosts_and_paths_would_be_found(line: str) -> None:
    assert REGISTRY_HOSTS.search(line) or MACHINE_PATHS.search(line)


@each("path", DOCUMENTED, ids=named)
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    public = [n for n in tree.body if isinstance(n, definitions) and not n.name.startswith("_")]
    silent = [node.name for node in public if not ast.get_docstring(node)]
    assert ast.get_docstring(tree), "the module says nothing about itself"
    assert silent == []


def test_only_settings_read_the_environment() -> None:
    names = ("environ", "environb", "getenv", "putenv")
    users = {
        named(path)
        for path in SHIPPED
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.alias) and node.name in names)
    }
    assert users == set(TOUCH_THE_ENVIRONMENT)
