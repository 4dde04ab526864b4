"""Class books: round trip, versions, names, and mistakes named by class."""

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
from pipelines.settings import PackagedText
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
    again = ClassBook.load(path)
    assert again == book
    assert again.version == book.version
    assert again.names == tuple(c["name"] for c in raw["classes"])
    first = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("names", [PCB, DEEP_PCB, ALUMINIUM, STEEL])
def test_the_glossary_knows_the_published_sets(names: tuple[str, ...]) -> None:
    book = glossary_book(names)
    assert book.names == names
    assert {entry.source for entry in book.classes} == {"glossary"}
    vocabulary = book.vocabulary()
    assert vocabulary.names == names
    assert vocabulary.version == book.version
    inner = {node.name for node in vocabulary.inner}
    assert all(text.parent in inner and len(text.paraphrases) >= 4 for text in vocabulary)


def test_every_glossary_entry_is_complete_and_of_its_own_words() -> None:
    seen: set[str] = set()
    for entry in (entry for name in DOMAINS for entry in domain(name).classes):
        assert tuple(entry.attributes) == ATTRIBUTES
        assert entry.aliases
        assert entry.confusable
        texts = [entry.description, *entry.paraphrases]
        assert len(texts) >= 5
        assert not seen & set(texts)
        seen |= set(texts)
        assert all(4 <= len(text.split()) <= 60 for text in texts)
        assert (entry.source, entry.author) == ("glossary", "")


def test_the_glossary_knows_more_than_sixty_defects_of_eight_trades() -> None:
    known = {name: [e for e in domain(name).classes if "mold_" not in e.name] for name in DOMAINS}
    assert len(DOMAINS) == 8
    assert min(map(len, known.values())) >= 5
    assert sum(map(len, known.values())) > 60


@pytest.mark.parametrize("names", [PCB, DEEP_PCB, ALUMINIUM, STEEL])
def test_of_the_classes_that_are_easily_confused_only_those_of_the_book_are_named(
    names: tuple[str, ...],
) -> None:
    book = glossary_book(names)
    confusable = {entry.name: entry.confusable for entry in book.classes}
    assert all(set(others) <= set(names) - {name} for name, others in confusable.items())
    assert sum(map(bool, confusable.values())) >= 3
    if "mousebite" in names:
        assert confusable["spur"] == ("spurious_copper", "short", "mousebite")


def test_the_packaged_encoder_reads_the_whole_glossary() -> None:
    cut = truncation_check(PackagedText())
    for name in DOMAINS:
        text = files("prompts.glossary").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        assert ClassBook.parse(text, name, check_length=cut) == domain(name)


def test_a_name_in_two_domains_is_taken_from_the_one_its_company_is_of() -> None:
    copper = glossary_book(["open", "pin_hole"]).entry("pin_hole").description
    metal = glossary_book(["scratch", "dirt", "pin_hole"]).entry("pin_hole").description
    assert "copper" in copper
    assert "metal surface" in metal


def test_an_unknown_name_gets_itself_as_its_text() -> None:
    entry = glossary_book(["spur", "fish_eye-left"]).entry("fish_eye-left")
    assert (entry.description, entry.source, entry.parent) == ("fish eye left", "name", None)


def test_a_class_may_have_the_name_of_an_inner_node() -> None:
    book = glossary_book(["spur", "excess_copper", "pcb_defect"])
    assert book.names == ("spur", "excess_copper", "pcb_defect")
    assert book.inner == ()


def test_two_names_for_one_defect_stay_two_classes() -> None:
    book = glossary_book(["open", "open_circuit"])
    assert [book.resolve(n) for n in ("open", "open_circuit")] == ["open", "open_circuit"]


@pytest.mark.parametrize("names", [[], ["spur", "Spur"], ["a", ""], ["a\x00b"]])
def test_names_that_make_no_book_are_refused(names: list[str]) -> None:
    with pytest.raises(ClassBookError):
        glossary_book(names)


@pytest.mark.parametrize("spelling", ["mouse_bite", "Mouse-Bite", "MOUSEBITE", "mouse bite", "nibble"])
def test_resolves_names_and_aliases_in_any_spelling(spelling: str) -> None:
    assert glossary_book(PCB).resolve(spelling) == "mouse_bite"


def test_resolves_aliases_of_other_scripts() -> None:
    assert glossary_book(ALUMINIUM).resolve("擦伤") == "ca_shang"


def test_a_class_the_book_lacks_is_named() -> None:
    with pytest.raises(
        ClassBookError, match="class 'dent' is not in the class book, which has missing_hole, "
    ):
        glossary_book(PCB).resolve("dent")


def test_another_description_is_another_version_and_leaves_the_old_book_alone() -> None:
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
def test_a_description_that_cannot_be_held_is_refused(text: str) -> None:
    with pytest.raises(ClassBookError, match=r"class 'spur': description"):
        glossary_book(PCB).with_description("spur", text, "person", "Ada")


WRONG = """
inner:
- {name: a, description: x, parent: b}
- {name: b, description: x, parent: a}
classes:
- {name: spur, description: x, parent: nowhere, aliases: [burr]}
- {name: Spur, description: x}
- {name: short, description: x, aliases: [BURR]}
"""


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            WRONG,
            [
                "line 7: class 'Spur': the name comes twice; give every",
                "line 8: class 'short': the alias 'BURR' belongs to 'spur'",
                "line 6: class 'spur': the parent 'nowhere' is unknown; known inner nodes are a, b",
                "line 3: inner node 'a': it is its own ancestor; break the circle",
            ],
        ),
        (
            "classes: [{name: spur}, {name: short, description: x, colour: red}]",
            ["has 2 mistakes", "class 'spur': description: Field required", "class 'short': colour: Extra"],
        ),
        ("classes: [{description: x}]", ["class number 1: name: Field required"]),
        ("classes: [{name: 5, description: x}]", ["class 5: name: Input should be a valid string"]),
        (
            "classes:\n- name: spur\n  description: x\n  attributes:\n    shape: y\n    colour: red",
            [
                "c.yaml, line 6: class 'spur': attributes.colour: this attribute is unknown; allowed are "
                "shape, edge, texture, orientation, size, contrast, place"
            ],
        ),
        (
            "classes:\n- {name: a, description: x, confusable: [a]}\n- name: b\n  description: x\n"
            "  confusable:\n  - a\n  - c\n  - a",
            [
                "line 2: class 'a': confusable: 'a' is the class itself",
                "line 7: class 'b': confusable: 'c' is no class of this book; its classes are a, b",
                "line 8: class 'b': confusable: 'a' comes twice",
            ],
        ),
        (
            "classes:\n- name: spur\n  description: ''\n- name: b\n  description: |\n    one\n    two\n"
            f"- name: c\n  description: {'x' * 801}",
            [
                "line 3: class 'spur': description: String should have at least 1",
                "line 5: class 'b': description: has the control character '\\n'",
                "line 9: class 'c': description: String should have at most 800",
            ],
        ),
        (
            "classes:\n- name: spur\n  description: x\n  description: y",
            ["c.yaml, line 4: 'description' comes twice, first on line 3. Remove one"],
        ),
        ("classes:\n- name: 2026-02-31\n  description: x", ["is not YAML", "day"]),
        ("classes:\n- name: a\x07", ["line 2 is not YAML", "special characters are not allowed"]),
        ("&a [*a]", ["c.yaml holds list"]),
        ("classes: &a [*a]", ["class number 1"]),
        ("classes: []", ["it has no class; add one"]),
        ("{}", ["classes: Field required"]),
        ("hello", ["holds str; expected 'classes'"]),
        ("", ["holds NoneType"]),
        ("classes: [", ["c.yaml, line 1 is not YAML"]),
        ("!!python/object/apply:os.getcwd []", ["is not YAML"]),
    ],
)
def test_every_mistake_is_named_at_once(tmp_path: Path, text: str, messages: list[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ClassBookError) as caught:
        ClassBook.load(path)
    for message in (str(path), *messages):
        assert message in str(caught.value)


def test_a_missing_book_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClassBookError, match=r"gone.yaml cannot be read"):
        ClassBook.load(tmp_path / "gone.yaml")


def test_the_file_is_plain_to_read(tmp_path: Path) -> None:
    glossary_book(ALUMINIUM).save(tmp_path / "c.yaml")
    text = (tmp_path / "c.yaml").read_text(encoding="utf-8")
    assert "擦伤" in text
    assert [c["name"] for c in yaml.safe_load(text)["classes"]] == list(ALUMINIUM)
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


def test_prompts_reach_no_torch() -> None:
    code = (
        "import sys, prompts.class_book, prompts.glossary, prompts.llm, prompts.draft_prompt, prompts.draft\n"
        "prompts.class_book.glossary_book(['spur'])\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
