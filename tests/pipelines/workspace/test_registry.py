"""The model registry: cards, evaluations, and the champion with its history."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dsmoe_core.errors import ModelError
from pipelines.workspace import registry as module
from pipelines.workspace.journal import Journal
from pipelines.workspace.registry import Metrics, Registry, new_card, source_commit


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry with the models a, b and c."""
    registry = Registry(tmp_path / "models", Journal.at(tmp_path / "journal.sqlite"))
    for number, name in enumerate(("a", "b", "c")):
        registry.register(
            new_card(
                name, number=number, parent=None, dataset_version="d", class_book="w", training={"steps": 3}
            )
        )
    return registry


def metrics(value: float) -> Metrics:
    return Metrics(map50=value, map=value, precision=1, recall=1, f1=1, per_class={}, evaluated_on="t+b")


def test_cards_are_read_as_they_were_written(registry: Registry) -> None:
    card = registry.card("a").model_copy(update={"parent": "b"})
    registry.register(card)
    assert registry.card("a") == card
    assert [c.id for c in registry.cards()] == ["a", "b", "c"]
    assert registry.has("a")
    assert not registry.has("z")
    with pytest.raises(ModelError, match=r"'z'.*: a, b, c"):
        registry.card("z")


def test_evaluation_is_kept_apart_from_the_card(registry: Registry) -> None:
    card = (registry.folder("a") / "card.json").read_bytes()
    assert registry.evaluation("a") is None
    for value in (0.25, 0.5):
        registry.save_evaluation("a", metrics(value))
        assert registry.evaluation("a") == metrics(value)
    assert (registry.folder("a") / "card.json").read_bytes() == card
    (registry.folder("a") / "evaluation.json").write_text("{")
    with pytest.raises(ModelError, match=r"evaluation\.json"):
        registry.evaluation("a")


def test_champion_can_be_rolled_back_through_its_history(registry: Registry) -> None:
    assert registry.champion() is None
    for name in ("a", "b", "b", "c"):
        registry.promote(name, "better")
    assert registry.rollback() == "b"
    assert registry.rollback("again") == "a"
    assert registry.champion() == "a"
    registry.promote("c", "after all")
    assert registry.rollback() == "a"
    assert [(change.model, change.action) for change in registry.history()] == [
        ("a", "promote"),
        ("b", "promote"),
        ("c", "promote"),
        ("b", "rollback"),
        ("a", "rollback"),
        ("c", "promote"),
        ("a", "rollback"),
    ]
    with pytest.raises(ModelError, match=r"\ba\b"):
        registry.rollback()
    with pytest.raises(ModelError, match="'z'"):
        registry.promote("z", "unknown")


def test_rollback_to_a_model_without_files_is_refused(registry: Registry) -> None:
    registry.promote("a", "better")
    registry.promote("b", "better")
    (registry.folder("a") / "card.json").unlink()
    with pytest.raises(ModelError, match=r"'a'.*: b, c"):
        registry.rollback()
    assert registry.champion() == "b"


def test_source_commit_reports_changed_code_and_ignores_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, result = tmp_path / "pipelines/workspace/registry.py", tmp_path / "benchmarks/results/demo.json"
    for file in (code, result):
        file.parent.mkdir(parents=True)
        file.write_text("before")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for arguments in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "all")):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    monkeypatch.setattr(module, "__file__", str(code))
    commit = source_commit()
    assert commit is not None
    assert len(commit) == 40
    result.write_text("after")
    assert source_commit() == commit
    code.write_text("after")
    assert source_commit() == f"{commit}+changes"


def test_source_commit_of_this_checkout() -> None:
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert (source_commit() or "").removesuffix("+changes") == head
