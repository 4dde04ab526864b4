"""dsmoe classes draft and refine on a workspace: a real server on loopback, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai_server import OpenAIServer, told_in_pieces

from pipelines import cli
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.services import factory
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.refinement import Refinement
from tests.pipelines.wordy import TextFollowingDetector

TELLING = {"rust": "crimson", "brick": "orange", "plum": "violet"}
Run = Callable[..., str]


def text(word: str) -> dict[str, Any]:
    said = [f"a spot that is {word} on plain grey, number {i}" for i in range(3)]
    return {"description": f"a spot that is {word} all over", "paraphrases": said}


def apart(first: str, second: str) -> dict[str, Any]:
    return {"difference": "the hue of the two is not the same", "first": text(first), "second": text(second)}


class Model:
    """Gives one answer after another to the server; after the last one it is gone."""

    def __init__(self) -> None:
        self.script: list[Any] = []

    def __call__(self, _body: dict[str, Any]) -> tuple[int, Any]:
        if not self.script:
            return 503, b"gone"
        said = self.script.pop(0)
        content = said if isinstance(said, str) else json.dumps(said)
        return 200, told_in_pieces({"content": content})


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def server(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    with OpenAIServer(model) as server:
        yield server


@pytest.fixture
def labelled(
    context: LoopContext,
    workspace: Workspace,
    label: Callable[[LoopContext], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Workspace:
    """After a round; its champion is then replaced by one that goes by words."""
    open_round(context)
    label(context)
    close_round(context)
    wordy = TextFollowingDetector(list(workspace.annotations().values()), TELLING)
    monkeypatch.setattr(factory, "detector_backend", lambda *_: wordy)
    return workspace


@pytest.fixture
def dsmoe(
    server: OpenAIServer, labelled: Workspace, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs ``dsmoe classes COMMAND`` with the server; what it says, to whichever stream."""

    def run(command: str, *words: str, code: int = 0) -> str:
        where = [str(labelled.path), "--llm", server.url, "--model", "tiny"]
        assert cli.run(["classes", command, *where, *words]) == code
        said = capsys.readouterr()
        return said.out + said.err

    return run


def book_of(workspace: Workspace) -> ClassBook:
    return ClassBook.load(workspace.path / "classes.yaml")


def states(workspace: Workspace) -> list[Refinement]:
    folder = workspace.path / "refine"
    return [Refinement.model_validate_json(path.read_text()) for path in sorted(folder.glob("*.json"))]


def pair_of(workspace: Workspace) -> tuple[str, str]:
    """Two classes that are labelled, in the book's order."""
    there = {a.label for p in workspace.annotations().values() for a in p.annotations}
    first, second, *_ = [name for name in book_of(workspace).names if name in there]
    return first, second


def asked(server: OpenAIServer, number: int) -> str:
    return str(server.bodies[number]["messages"][-1]["content"])


def test_a_draft_is_asked_for_with_facts_and_notes(
    dsmoe: Run, server: OpenAIServer, model: Model, labelled: Workspace, tmp_path: Path
) -> None:
    attributes = dict.fromkeys(
        ("shape", "edge", "texture", "orientation", "size", "contrast", "place"), "as seen"
    )
    model.script = [{**text("crimson"), "attributes": attributes}]
    notes = tmp_path / "notes.yaml"
    notes.write_text("rust: never in the corners\n")
    name = "rust"
    shown = dsmoe("draft", "--classes", name, "--notes", str(notes), "--note", "rust: always dull")
    assert "rust: a spot that is crimson all over" in shown
    assert f"see `dsmoe classes diff --workspace {labelled.path}`" in shown
    question = asked(server, 0)
    assert "An expert says, and it outweighs all else: never in the corners always dull" in question
    boxes = sum(a.label == name for p in labelled.annotations().values() for a in p.annotations)
    known = f"{boxes} annotated boxes on" if boxes else "no box of this class is annotated yet"
    assert f"Measured on the annotated boxes, keep to it: {known}" in question
    assert book_of(labelled).entry(name).author == "tiny"


def test_better_texts_go_into_the_book(
    dsmoe: Run, server: OpenAIServer, model: Model, labelled: Workspace
) -> None:
    first, second = pair_of(labelled)
    before = book_of(labelled)
    model.script = [apart("dull", "dull"), apart(TELLING[first], TELLING[second])]
    shown = dsmoe("refine", "--pair", f"{second},{first}", "--rounds", "2", "--note", f"{first}: bright")
    after = book_of(labelled)
    assert after.entry(first).description == f"a spot that is {TELLING[first]} all over"
    assert (after.entry(first).source, after.entry(first).author) == ("model", "tiny")
    assert f"- {before.entry(first).description}" in shown
    assert f"+ {after.entry(first).description}" in shown
    assert "stopped: all 2 rounds are done; 2 calls, " in shown
    assert f"calls, {states(labelled)[0].spent.tokens:,} tokens, " in shown
    assert f"classes.yaml has the texts of candidate 2: {before.version} -> {after.version}" in shown
    assert (
        f"then `dsmoe classes evaluate working --workspace {labelled.path} --json evaluation.json`" in shown
    )
    (state,) = states(labelled)
    assert [c.id for c in state.candidates] == [0, 1, 2]
    assert state.pairs[0].count > 0
    assert "An expert says, and it outweighs all else: bright" in asked(server, 0)
    assert "annotated boxes on" in asked(server, 0)
    assert "a spot that is dull all over" in asked(server, 1)


def test_the_most_confused_pairs_are_found(dsmoe: Run, model: Model, labelled: Workspace) -> None:
    model.script = [apart("dull", "dull")]
    shown = dsmoe("refine", "--pairs", "1", "--rounds", "1", code=0)
    (state,) = states(labelled)
    assert len(state.pairs) == 1
    assert f"{state.pairs[0].title}: taken for the other by the detector" in shown


def test_worse_texts_change_nothing_and_the_same_command_asks_nothing_more(
    dsmoe: Run, server: OpenAIServer, model: Model, labelled: Workspace
) -> None:
    first, second = pair_of(labelled)
    before = (labelled.path / "classes.yaml").read_bytes()
    model.script = [apart("dull", "dull"), apart("grey", "grey")]
    words = ("--pair", f"{first},{second}", "--rounds", "2")
    assert "No candidate is better" in dsmoe("refine", *words)
    again = dsmoe("refine", *words)
    assert "goes on: 2 tried, 2 calls" in again
    assert "No candidate is better" in again
    assert len(server.bodies) == 2
    assert (labelled.path / "classes.yaml").read_bytes() == before


def test_a_budget_of_tokens_ends_it_and_a_larger_one_goes_on(
    dsmoe: Run, server: OpenAIServer, model: Model, labelled: Workspace
) -> None:
    words = ("--pair", ",".join(pair_of(labelled)), "--rounds", "2", "--tokens")
    model.script = [apart("dull", "dull"), apart("grey", "grey")]
    for _ in range(2):
        shown = dsmoe("refine", *words, "1")
        assert "stopped: the budget of 1 tokens is used up; 1 call, " in shown
        assert "No candidate is better" in shown
        assert len(server.bodies) == 1
    assert "stopped: all 2 rounds are done; 2 calls, " in dsmoe("refine", *words, "100000")


def test_a_server_that_is_gone_in_the_middle_leaves_the_book_alone_and_the_next_run_goes_on(
    dsmoe: Run, model: Model, labelled: Workspace
) -> None:
    first, second = pair_of(labelled)
    before = (labelled.path / "classes.yaml").read_bytes()
    model.script = [apart(TELLING[first], TELLING[second])]
    words = ("--pair", f"{first},{second}", "--rounds", "2")
    shown = dsmoe("refine", *words, code=2)
    assert "classes.yaml is unchanged; spent so far: 1 call, " in shown
    assert "and the next run goes on with it." in shown
    assert (labelled.path / "classes.yaml").read_bytes() == before
    (state,) = states(labelled)
    assert len(state.candidates) == 2
    model.script = [apart("dull", "dull")]
    assert "goes on: 1 tried, 1 call" in dsmoe("refine", *words)
    assert [len(state.candidates) for state in states(labelled)] == [3]
    assert TELLING[first] in book_of(labelled).entry(first).description


def test_nonsense_ends_in_a_message_and_an_unchanged_book(
    dsmoe: Run, model: Model, labelled: Workspace
) -> None:
    before = (labelled.path / "classes.yaml").read_bytes()
    model.script = ["no idea"] * 3
    shown = dsmoe("refine", "--pair", ",".join(pair_of(labelled)), code=2)
    assert "gave no valid answer in 3 attempts" in shown
    assert (labelled.path / "classes.yaml").read_bytes() == before


def test_labels_that_change_begin_anew_for_old_figures_say_nothing(
    dsmoe: Run, model: Model, labelled: Workspace
) -> None:
    from pipelines.class_text.refinement_runner import save_refinement

    words = ("--pair", ",".join(pair_of(labelled)), "--rounds", "1")
    model.script = [apart("dull", "dull"), apart("dull", "dull")]
    dsmoe("refine", *words)
    (state,) = states(labelled)
    save_refinement(labelled, state.model_copy(update={"evaluator": "of other boxes"}))
    assert f"refinement {state.id} begins" in dsmoe("refine", *words)
    assert states(labelled)[0].spent.calls == 0  # its answer is known from before


def test_a_book_that_a_person_changed_meanwhile_is_left_to_them(
    dsmoe: Run, server: OpenAIServer, model: Model, labelled: Workspace
) -> None:
    first, second = pair_of(labelled)
    edited = book_of(labelled).with_description(second, "what Ada saw", "person", "Ada")

    def meanwhile(body: dict[str, Any]) -> tuple[int, Any]:
        edited.save(labelled.path / "classes.yaml")
        return model(body)

    server.reply = meanwhile
    model.script = [apart(TELLING[first], TELLING[second])]
    shown = dsmoe("refine", "--pair", f"{first},{second}", "--rounds", "1", code=2)
    assert "was changed from version" in shown
    assert book_of(labelled) == edited


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--pair", "rust"), "--pair is 'rust'; expected two classes"),
        (("--pair", "rust,Rust"), "is one class, 'rust'; expected two"),
        (("--pair", "rust,dent"), "class 'dent' is not in the class book"),
        (("--note", "rust"), "names no class"),
    ],
)
def test_what_cannot_be_refined_is_named_before_anything_is_asked(
    dsmoe: Run, server: OpenAIServer, words: tuple[str, ...], problem: str
) -> None:
    assert problem in dsmoe("refine", *words, code=2)
    assert server.bodies == []


def test_without_a_champion_it_says_what_to_do(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [str(workspace.path), "--llm", "http://127.0.0.1:9/v1", "--model", "tiny"]
    assert cli.run(["classes", "refine", *where]) == 2
    assert "there is no champion" in capsys.readouterr().err


def test_a_torn_file_is_named(dsmoe: Run, model: Model, labelled: Workspace) -> None:
    words = ("--pair", ",".join(pair_of(labelled)), "--rounds", "1")
    model.script = [apart("dull", "dull")]
    dsmoe("refine", *words)
    (path,) = (labelled.path / "refine").glob("*.json")
    path.write_text("{")
    assert f"{path.name} is no refinement" in dsmoe("refine", *words, code=2)
