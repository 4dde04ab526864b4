"""Checks of the source tree: imports, sizes, names, docstrings, use of the environment."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("annotate", "dsmoe_core", "pipelines", "prompts", "ui")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
LONGER_FUNCTIONS = {"forward": 100, "fit": 100}
VAGUE_MODULE_NAMES = {"util", "utils", "helper", "helpers", "misc", "common"}
# Words of earlier versions; DESIGN's vocabulary has one term of the field for each.
BANNED_WORDS = {
    "told",
    "bout",
    "lesson",
    "seam",
    "picture",
    "crew",
    "finding",
    "handicap",
    "prelabel",
    "contestant",
}
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
(TORCH_FREE,) = [contract for contract in CONTRACTS if "torch" in contract.get("forbidden_modules", [])]

# The modules that may use environment variables, with the reason.
USE_THE_ENVIRONMENT = {
    "pipelines/settings/environment.py": "reads all settings",
    "pipelines/detectors/tracking.py": "turns off MLflow's telemetry, which has no other switch",
    "pipelines/orchestration/ray_engine.py": "turns off Ray's usage statistics, which has no other switch",
    "annotate/review/server.py": "FiftyOne is configured by environment variables only",
}

# Written in parts, so that this file does not contain the names that it forbids.
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
    """The tracked files of the repository, and new files that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return [path for name in sorted(filter(None, listed.split("\0"))) if (path := ROOT / name).is_file()]


def relative(path: Path) -> str:
    """The path below the repository, with slashes."""
    return path.relative_to(ROOT).as_posix()


FILES = tracked()
PYTHON = [path for path in FILES if path.suffix == ".py"]
SHIPPED = [path for path in PYTHON if relative(path).split("/")[0] in PACKAGES]
DOCUMENTED = [path for path in SHIPPED if relative(path).split("/")[0] in ("dsmoe_core", "pipelines")]
each = pytest.mark.parametrize


def module(path: Path) -> str:
    """The dotted module name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def text(path: Path) -> str:
    """The text of a file; empty for a binary file."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_all_packages_are_checked() -> None:
    assert {relative(path).split("/")[0] for path in SHIPPED} == set(PACKAGES)
    assert ROOT / "requirements.lock" in FILES


def test_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout), done.stdout


def test_torch_free_modules_import_no_torch() -> None:
    """A new interpreter imports all of them and reports the module that imported torch."""
    torch_free, stack = TORCH_FREE["source_modules"], TORCH_FREE["forbidden_modules"]
    modules = [
        name for name in map(module, SHIPPED) if any(f"{name}.".startswith(f"{p}.") for p in torch_free)
    ]
    assert {"annotate", "prompts", "dsmoe_core.schema"} <= set(modules)
    program = (
        "import importlib, json, sys\n"
        "imported = {}\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    new = [m for m in {stack!r} if m in sys.modules and m not in sum(imported.values(), [])]\n"
        "    imported.update({name: new} if new else {})\n"
        "print(json.dumps(imported))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}


@each("path", PYTHON, ids=relative)
def test_file_is_short_and_has_a_telling_name(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES
    assert not {path.stem, *path.relative_to(ROOT).parts[:-1]} & VAGUE_MODULE_NAMES


def words(identifier: str) -> set[str]:
    """The words of an identifier in lower case, plural forms without their s."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)
    return {part.lower() for part in parts} | {part.lower().removesuffix("s") for part in parts}


def test_identifiers_are_split_into_words() -> None:
    assert words("LabelledPictures_of_MAX_BOUTS") == {
        *("labelled", "pictures", "picture", "of", "max", "bouts", "bout"),
    }


@each("path", PYTHON, ids=relative)
def test_identifiers_use_the_vocabulary(path: Path) -> None:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    names = {path.stem} | {token.string for token in tokens if token.type == tokenize.NAME}
    assert sorted(name for name in names if words(name) & BANNED_WORDS) == []


@each("path", PYTHON, ids=relative)
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


@each("path", PYTHON, ids=relative)
def test_type_ignores_name_their_error_code(path: Path) -> None:
    assert BARE_TYPE_IGNORE.findall(path.read_text()) == []


def test_no_file_names_a_registry_host_or_a_path_of_one_machine() -> None:
    hits = {
        f"{relative(path)}:{number}": line.strip()[:100]
        for path in FILES
        for number, line in enumerate(text(path).splitlines(), start=1)
        if REGISTRY_HOSTS.search(line) or MACHINE_PATHS.search(line)
    }
    assert hits == {}


@each(
    "line",
    ["see https://pypi" + ".org/simple", "curl https://download.py" + "torch.org/whl", "/work" + "/data"],
)
def test_the_patterns_match_hosts_and_paths(line: str) -> None:
    assert REGISTRY_HOSTS.search(line) or MACHINE_PATHS.search(line)


@each("path", DOCUMENTED, ids=relative)
def test_public_names_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    public = [n for n in tree.body if isinstance(n, definitions) and not n.name.startswith("_")]
    undocumented = [node.name for node in public if not ast.get_docstring(node)]
    assert ast.get_docstring(tree), "the module has no docstring"
    assert undocumented == []


def test_only_settings_read_the_environment() -> None:
    names = ("environ", "environb", "getenv", "putenv")
    users = {
        relative(path)
        for path in SHIPPED
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.alias) and node.name in names)
    }
    assert users == set(USE_THE_ENVIRONMENT)
