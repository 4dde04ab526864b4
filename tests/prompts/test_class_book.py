"""Class books: round trip, versions, names, the glossary and error messages."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmoe_core.errors import ClassBookError
from pipelines.settings.detector import PackagedText
from pipelines.workspace.token_limit import truncation_check
from prompts.class_book import ClassBook
from prompts.class_entry import ATTRIBUTES
from prompts.glossary import DOMAINS, domain, glossary_book

PCB = ("missing_hole", "mouse_bite", "open_circuit", "short", "spur", "spurious_copper")
DEEP_PCB = ("open", "short", "mousebite", "spur", "spurious_copper", "pin_hole")
ALUMINIUM = ("zhen_kong", "ca_shang", "zang_wu", "zhe_zhou")
STEEL = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")

WORD = st.text(
    st.characters(whitelist_categories=("Ll", "Lu", "Nd"), max_codepoint=0x9FFF), min_size=1, max_size=9
)
TEXT = st.text(
    st.characters(whitelist_categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=60
).filter(lambda t: t.strip() and t.isprintable())


@st.composite
def raw_books(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(WORD, min_size=1, max_size=6, unique_by=str.casefold))
    inner = [{"name": f"inner-{i}", "description": draw(TEXT)} for i in range(draw(st.integers(0, 2)))]
    parents = st.sampled_from([None, *(node["name"] for node in inner)])
    return {
        "inner": inner,
        "classes": [
            {
                "name": name,
                "description": draw(TEXT),
                "parent": draw(parents),
                "paraphrases": draw(st.lists(TEXT, max_size=3)),
                "attributes": draw(st.dictionaries(st.sampled_from(ATTRIBUTES), TEXT, max_size=2)),
                "confusable": draw(
                    st.lists(st.sampled_from([n for n in names if n != name] or [name]), unique=True)
                    if len(names) > 1
                    else st.just([])
                ),
                "source": draw(st.sampled_from(["name", "glossary", "person", "model"])),
                "author": draw(WORD),
            }
            for name in names
        ],
    }


@given(raw_books())
@settings(max_examples=40, deadline=None)
def test_round_trip_keeps_everything_and_its_order(
    tmp_path_factory: pytest.TempPathFactory, raw: Any
) -> None:
    book = ClassBook.from_content(raw, "test")
    path = tmp_path_factory.mktemp("book") / "classes.yaml"
    book.save(path)
    loaded = ClassBook.load(path)
    assert loaded == book
    assert loaded.version == book.version
    assert loaded.names == tuple(c["name"] for c in raw["classes"])
    first = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("names", [PCB, DEEP_PCB, ALUMINIUM, STEEL])
def test_glossary_covers_public_data_sets(names: tuple[str, ...]) -> None:
    book = glossary_book(names)
    assert book.names == names
    assert {entry.source for entry in book.classes} == {"glossary"}
    vocabulary = book.vocabulary()
    assert vocabulary.names == names
    assert vocabulary.version == book.version
    inner = {node.name for node in vocabulary.inner}
    assert all(text.parent in inner and len(text.paraphrases) >= 4 for text in vocabulary)


def test_every_glossary_entry_is_complete_and_has_unique_texts() -> None:
    texts_so_far: set[str] = set()
    for entry in (entry for name in DOMAINS for entry in domain(name).classes):
        assert tuple(entry.attributes) == ATTRIBUTES
        assert entry.aliases
        assert entry.confusable
        texts = [entry.description, *entry.paraphrases]
        assert len(texts) >= 5
        assert not texts_so_far & set(texts)
        texts_so_far |= set(texts)
        assert all(4 <= len(text.split()) <= 60 for text in texts)
        assert (entry.source, entry.author) == ("glossary", "")


def test_glossary_has_more_than_sixty_defects_in_eight_domains() -> None:
    entries = {name: [e for e in domain(name).classes if "mold_" not in e.name] for name in DOMAINS}
    assert len(DOMAINS) == 8
    assert min(map(len, entries.values())) >= 5
    assert sum(map(len, entries.values())) > 60


@pytest.mark.parametrize("names", [PCB, DEEP_PCB, ALUMINIUM, STEEL])
def test_confusable_classes_are_limited_to_those_of_the_book(
    names: tuple[str, ...],
) -> None:
    book = glossary_book(names)
    confusable = {entry.name: entry.confusable for entry in book.classes}
    assert all(set(others) <= set(names) - {name} for name, others in confusable.items())
    assert sum(map(bool, confusable.values())) >= 3
    if "mousebite" in names:
        assert confusable["spur"] == ("spurious_copper", "short", "mousebite")


def test_no_glossary_text_is_too_long_for_the_packaged_encoder() -> None:
    check_length = truncation_check(PackagedText())
    for name in DOMAINS:
        text = files("prompts.glossary").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        assert ClassBook.parse(text, name, check_length=check_length) == domain(name)


def test_name_in_two_domains_is_taken_from_the_domain_with_most_of_the_names() -> None:
    copper = glossary_book(["open", "pin_hole"]).entry("pin_hole").description
    metal = glossary_book(["scratch", "dirt", "pin_hole"]).entry("pin_hole").description
    assert "copper" in copper
    assert "metal surface" in metal


def test_unknown_name_becomes_its_own_description() -> None:
    entry = glossary_book(["spur", "fish_eye-left"]).entry("fish_eye-left")
    assert (entry.description, entry.source, entry.parent) == ("fish eye left", "name", None)


def test_class_may_have_the_name_of_an_inner_node() -> None:
    book = glossary_book(["spur", "excess_copper", "pcb_defect"])
    assert book.names == ("spur", "excess_copper", "pcb_defect")
    assert book.inner == ()


def test_two_names_for_one_defect_stay_two_classes() -> None:
    book = glossary_book(["open", "open_circuit"])
    assert [book.resolve(n) for n in ("open", "open_circuit")] == ["open", "open_circuit"]


@pytest.mark.parametrize("names", [[], ["spur", "Spur"], ["a", ""], ["a\x00b"]])
def test_invalid_names_are_refused(names: list[str]) -> None:
    with pytest.raises(ClassBookError):
        glossary_book(names)


@pytest.mark.parametrize("spelling", ["mouse_bite", "Mouse-Bite", "MOUSEBITE", "mouse bite", "nibble"])
def test_names_and_aliases_are_resolved_in_any_spelling(spelling: str) -> None:
    assert glossary_book(PCB).resolve(spelling) == "mouse_bite"


def test_aliases_in_other_scripts_are_resolved() -> None:
    assert glossary_book(ALUMINIUM).resolve("擦伤") == "ca_shang"


def test_unknown_class_is_named() -> None:
    with pytest.raises(ClassBookError, match=r"'dent' .*missing_hole, "):
        glossary_book(PCB).resolve("dent")


def test_with_description_returns_a_new_version_and_keeps_the_old_book() -> None:
    book = glossary_book(PCB)
    before = book.version
    changed = book.with_description("Spur", "a thorn", "person", "Ada", paraphrases=["a spike"])
    entry = changed.entry("spur")
    assert (entry.description, entry.source, entry.author) == ("a thorn", "person", "Ada")
    assert entry.paraphrases == ("a spike",)
    assert entry.attributes == book.entry("spur").attributes
    assert changed.names == book.names
    assert changed.version != before == book.version == glossary_book(PCB).version


@pytest.mark.parametrize("text", ["", "  ", "x" * 801, "bell\a"])
def test_invalid_description_is_refused(text: str) -> None:
    with pytest.raises(ClassBookError, match=r"'spur': description"):
        glossary_book(PCB).with_description("spur", text, "person", "Ada")


INCONSISTENT = """
inner:
- {name: a, description: x, parent: b}
- {name: b, description: x, parent: a}
classes:
- {name: spur, description: x, parent: nowhere, aliases: [burr]}
- {name: Spur, description: x}
- {name: short, description: x, aliases: [BURR]}
"""


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (
            INCONSISTENT,
            [
                "line 7: class 'Spur'",
                "line 8: class 'short': the alias 'BURR' belongs to 'spur'",
                "line 6: class 'spur': the parent 'nowhere'",
                "line 3: inner node 'a'",
            ],
        ),
        (
            "classes: [{name: spur}, {name: short, description: x, colour: red}]",
            ["2 mistakes", "class 'spur': description: ", "class 'short': colour: "],
        ),
        ("classes: [{description: x}]", ["class number 1: name: "]),
        ("classes: [{name: 5, description: x}]", ["class 5: name: "]),
        (
            "classes:\n- name: spur\n  description: x\n  attributes:\n    shape: y\n    colour: red",
            [
                "line 6: class 'spur': attributes.colour: ",
                "shape, edge, texture, orientation, size, contrast, place",
            ],
        ),
        (
            "classes:\n- {name: a, description: x, confusable: [a]}\n- name: b\n  description: x\n"
            "  confusable:\n  - a\n  - c\n  - a",
            [
                "line 2: class 'a': confusable: 'a'",
                "line 7: class 'b': confusable: 'c'",
                "line 8: class 'b': confusable: 'a'",
            ],
        ),
        (
            "classes:\n- name: spur\n  description: ''\n- name: b\n  description: |\n    one\n    two\n"
            f"- name: c\n  description: {'x' * 801}",
            [
                "line 3: class 'spur': description: ",
                "line 5: class 'b': description: has the control character '\\n'",
                "line 9: class 'c': description: ",
            ],
        ),
        ("classes:\n- name: spur\n  description: x\n  description: y", ["line 4", "'description'", "line 3"]),
        ("classes:\n- name: 2026-02-31\n  description: x", ["YAML", "day"]),
        ("classes:\n- name: a\x07", ["line 2", "YAML"]),
        ("&a [*a]", ["holds list"]),
        ("classes: &a [*a]", ["class number 1"]),
        ("classes: []", []),
        ("{}", ["classes: "]),
        ("hello", ["holds str", "'classes'"]),
        ("", ["holds NoneType"]),
        ("classes: [", ["line 1", "YAML"]),
        ("!!python/object/apply:os.getcwd []", ["YAML"]),
    ],
)
def test_all_mistakes_are_reported_with_class_and_line(tmp_path: Path, text: str, values: list[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ClassBookError) as caught:
        ClassBook.load(path)
    for value in (str(path), *values):
        assert value in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClassBookError, match=r"gone\.yaml"):
        ClassBook.load(tmp_path / "gone.yaml")


def test_file_is_readable_utf8(tmp_path: Path) -> None:
    glossary_book(ALUMINIUM).save(tmp_path / "c.yaml")
    text = (tmp_path / "c.yaml").read_text(encoding="utf-8")
    assert "擦伤" in text
    assert [c["name"] for c in yaml.safe_load(text)["classes"]] == list(ALUMINIUM)
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


def test_prompts_do_not_import_torch() -> None:
    code = (
        "import sys, prompts.class_book, prompts.glossary, prompts.llm, prompts.draft_prompt, prompts.draft\n"
        "prompts.glossary.glossary_book(['spur'])\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
