"""The compose file has the structure of the compose specification, and no secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.detectors.tracking import DATABASE

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# Keys of the compose specification that are used here, with the types that it allows for them.
TOP_LEVEL = {"name": str, "services": dict, "volumes": dict}
SERVICE: dict[str, type | tuple[type, ...]] = {
    "build": dict,
    "command": list,
    "depends_on": dict,
    "deploy": dict,
    "environment": dict,
    "expose": list,
    "healthcheck": dict,
    "image": str,
    "ipc": str,
    "logging": dict,
    "ports": list,
    "profiles": list,
    "restart": str,
    "user": str,
    "volumes": list,
}
VARIABLE = re.compile(r"\$\{(\w+)(?::?[-?][^}]*)?\}")
SECRET = re.compile(r"PASSWORD|TOKEN|KEY|SECRET")
each = pytest.mark.parametrize


def test_all_services_are_there() -> None:
    expected = {"postgres", "label-studio", "ml-backend", "mongodb", "mlflow", "dagster", "vllm"}
    assert set(SERVICES) == expected
    for key, value in COMPOSE.items():
        assert key.startswith("x-") or isinstance(value, TOP_LEVEL[key])


@each("name", SERVICES)
def test_service_has_keys_and_types_of_the_specification(name: str) -> None:
    service = SERVICES[name]
    for key, value in service.items():
        assert isinstance(value, SERVICE[key]), key
    assert "image" in service or "build" in service
    assert all(isinstance(v, str) for v in service.get("environment", {}).values())
    assert all(isinstance(v, str) for v in service.get("command", []))
    if "healthcheck" in service:
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@each("name", SERVICES)
def test_dependencies_and_volumes_exist(name: str) -> None:
    service = SERVICES[name]
    for other, condition in service.get("depends_on", {}).items():
        assert condition["condition"] == "service_healthy"
        assert "healthcheck" in SERVICES[other]
    for volume in service.get("volumes", []):
        source = re.split(r":(?![?-])", VARIABLE.sub("/host", volume))[0]
        assert source.startswith("/") or source in COMPOSE["volumes"]


@each("name", SERVICES)
def test_ports_are_on_loopback_and_used_once(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        address, host, container = port.split(":")
        assert address == "127.0.0.1"
        assert host.isdigit()
        assert container.isdigit()
    ports = [p.split(":")[1] for s in SERVICES.values() for p in s.get("ports", [])]
    assert len(ports) == len(set(ports))


@each("name", SERVICES)
def test_secrets_come_from_the_environment(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if SECRET.search(variable) and value != "true":
            assert VARIABLE.fullmatch(value), variable
            assert ":?" in value, variable


def test_the_example_names_every_variable_and_no_value_of_a_secret() -> None:
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(example) == {match[1] for match in VARIABLE.finditer(TEXT)}
    assert not any(value for name, value in example.items() if SECRET.search(name))


def test_images_have_a_version() -> None:
    for service in SERVICES.values():
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.]*", service["image"])


def test_mlflow_reads_the_file_that_the_trainings_write() -> None:
    (option,) = [part for part in SERVICES["mlflow"]["command"] if part.startswith("--backend-store-uri=")]
    assert option.endswith(f"/tracking/{DATABASE}")


def test_the_image_has_every_package_and_extras_that_exist() -> None:
    import tomllib

    text = (DEPLOY / "Dockerfile").read_text()
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert all(f"COPY {package} {package}" in text for package in packages)
    extras = re.search(r"'\.\[([\w,]+)\]'", text)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["project"]["optional-dependencies"])
