"""Models and the champion: promoted, rolled back, with history; the gate and its words."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dsmoe_core.errors import ModelError
from pipelines.rounds.gate import verdict
from pipelines.workspace import registry as module
from pipelines.workspace.journal import Journal
from pipelines.workspace.registry import Metrics, Registry, new_card, source_commit


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "models", Journal.at(tmp_path / "journal.sqlite"))
    for number, name in enumerate(("a", "b", "c")):
        made.register(
            new_card(
                name, number=number, parent=None, dataset_version="d", class_book="w", training={"steps": 3}
            )
        )
    return made


def scores(value: float) -> Metrics:
    return Metrics(map50=value, map=value, precision=1, recall=1, f1=1, per_class={}, evaluated_on="t+b")


def test_cards_come_back(registry: Registry) -> None:
    card = registry.card("a").model_copy(update={"evaluation": scores(0.25)})
    registry.register(card)
    assert registry.card("a") == card
    assert [c.id for c in registry.cards()] == ["a", "b", "c"]
    assert registry.has("a")
    assert not registry.has("z")
    with pytest.raises(ModelError, match=r"'z' is not in .*there are: a, b, c"):
        registry.card("z")


def test_the_champion_can_be_rolled_back_to_each_one_before_it(registry: Registry) -> None:
    assert registry.champion() is None
    for name in ("a", "b", "b", "c"):
        registry.promote(name, "better")
    assert registry.rollback() == "b"
    assert registry.rollback("again") == "a"
    assert registry.champion() == "a"
    registry.promote("c", "after all")
    assert registry.rollback() == "a"
    assert [(h.model, h.action) for h in registry.history()] == [
        ("a", "promote"),
        ("b", "promote"),
        ("c", "promote"),
        ("b", "rollback"),
        ("a", "rollback"),
        ("c", "promote"),
        ("a", "rollback"),
    ]
    with pytest.raises(ModelError, match="no champion before a"):
        registry.rollback()
    with pytest.raises(ModelError, match="'z' is not in"):
        registry.promote("z", "unknown")


def test_a_champion_whose_files_are_gone_does_not_come_back(registry: Registry) -> None:
    registry.promote("a", "better")
    registry.promote("b", "better")
    (registry.folder("a") / "card.json").unlink()
    with pytest.raises(ModelError, match=r"'a' is not in .*there are: b, c"):
        registry.rollback()
    assert registry.champion() == "b"


def test_only_what_is_better_is_promoted_and_the_reason_is_said() -> None:
    assert verdict(scores(0.2), None, first=True) == (True, "promoted: first model, mAP 0.200")
    assert verdict(scores(0.31), scores(0.25), first=False) == (True, "promoted: mAP 0.310 > 0.250")
    promoted, reason = verdict(scores(0.25), scores(0.25), first=False)
    assert not promoted
    assert reason == "refused: mAP 0.250 is not above the champion's 0.250"
    assert not verdict(scores(0.26), scores(0.25), first=False, min_gain=0.02)[0]
    assert verdict(None, None, first=False)[1] == "promoted: there is no test set to judge it on"


def test_the_source_commit_tells_changed_code_and_not_new_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, result = tmp_path / "pipelines/workspace/registry.py", tmp_path / "benchmarks/results/demo.json"
    for file in (code, result):
        file.parent.mkdir(parents=True)
        file.write_text("before")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "all")):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(module, "__file__", str(code))
    commit = source_commit()
    assert commit is not None
    assert len(commit) == 40
    result.write_text("after")
    assert source_commit() == commit
    code.write_text("after")
    assert source_commit() == f"{commit}+changes"
