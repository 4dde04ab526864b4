"""Commands `dsmoe classes draft` and `refine`, with an OpenAI-compatible server on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai_server import OpenAIServer, stream_body

from pipelines import cli
from pipelines.class_text.refinement_runner import save_refinement
from pipelines.detectors import registry
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.class_entry import ATTRIBUTES
from prompts.refinement import Refinement
from tests.pipelines.class_text.text_following_detector import TextFollowingDetector

KEYWORDS = {"rust": "crimson", "brick": "orange", "plum": "violet"}
Run = Callable[..., str]


def description(word: str) -> dict[str, Any]:
    paraphrases = [f"a spot that is {word} on plain grey, number {i}" for i in range(3)]
    return {"description": f"a spot that is {word} all over", "paraphrases": paraphrases}


def pair_answer(first: str, second: str) -> dict[str, Any]:
    difference = "the hue of the two is not the same"
    return {"difference": difference, "first": description(first), "second": description(second)}


class ScriptedAnswers:
    """Replies of the server in order; after the last one the server is unavailable."""

    def __init__(self) -> None:
        self.script: list[Any] = []

    def __call__(self, _body: dict[str, Any]) -> tuple[int, Any]:
        if not self.script:
            return 503, b"gone"
        answer = self.script.pop(0)
        content = answer if isinstance(answer, str) else json.dumps(answer)
        return 200, stream_body({"content": content})


@pytest.fixture
def model() -> ScriptedAnswers:
    return ScriptedAnswers()


@pytest.fixture
def server(model: ScriptedAnswers, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
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
    """A workspace after one round, whose champion is replaced by a detector that follows the texts."""
    open_round(context)
    label(context)
    close_round(context)
    detector = TextFollowingDetector(list(workspace.annotations().values()), KEYWORDS)
    monkeypatch.setattr(registry, "detector_backend", lambda *_: detector)
    return workspace


@pytest.fixture
def dsmoe(
    server: OpenAIServer, labelled: Workspace, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs ``dsmoe classes COMMAND`` with the server, and returns its output and errors."""

    def run(command: str, *options: str, code: int = 0) -> str:
        common = [str(labelled.path), "--llm", server.url, "--model", "tiny"]
        assert cli.run(["classes", command, *common, *options]) == code
        printed = capsys.readouterr()
        return printed.out + printed.err

    return run


def book_of(workspace: Workspace) -> ClassBook:
    return ClassBook.load(workspace.path / "classes.yaml")


def saved_states(workspace: Workspace) -> list[Refinement]:
    folder = workspace.path / "refine"
    return [Refinement.model_validate_json(path.read_text()) for path in sorted(folder.glob("*.json"))]


def pair_of(workspace: Workspace) -> tuple[str, str]:
    """Two classes with annotations, in the book's order."""
    annotated = {a.label for item in workspace.annotations().values() for a in item.annotations}
    first, second, *_ = [name for name in book_of(workspace).names if name in annotated]
    return first, second


def prompt(server: OpenAIServer, number: int) -> str:
    return str(server.bodies[number]["messages"][-1]["content"])


def test_draft_prompt_has_facts_and_notes(
    dsmoe: Run, server: OpenAIServer, model: ScriptedAnswers, labelled: Workspace, tmp_path: Path
) -> None:
    model.script = [{**description("crimson"), "attributes": dict.fromkeys(ATTRIBUTES, "as seen")}]
    notes = tmp_path / "notes.yaml"
    notes.write_text("rust: never in the corners\n")
    name = "rust"
    output = dsmoe("draft", "--classes", name, "--notes", str(notes), "--note", "rust: always dull")
    assert "rust: a spot that is crimson all over" in output
    assert f"`dsmoe classes diff --workspace {labelled.path}`" in output
    assert "never in the corners always dull" in prompt(server, 0)
    boxes = sum(a.label == name for item in labelled.annotations().values() for a in item.annotations)
    assert (f"{boxes} annotated boxes on" if boxes else "no box of this class") in prompt(server, 0)
    assert book_of(labelled).entry(name).author == "tiny"


def test_better_descriptions_are_written_into_the_class_book(
    dsmoe: Run, server: OpenAIServer, model: ScriptedAnswers, labelled: Workspace
) -> None:
    first, second = pair_of(labelled)
    before = book_of(labelled)
    model.script = [pair_answer("dull", "dull"), pair_answer(KEYWORDS[first], KEYWORDS[second])]
    output = dsmoe("refine", "--pair", f"{second},{first}", "--rounds", "2", "--note", f"{first}: bright")
    after = book_of(labelled)
    assert after.entry(first).description == f"a spot that is {KEYWORDS[first]} all over"
    assert (after.entry(first).source, after.entry(first).author) == ("model", "tiny")
    assert f"- {before.entry(first).description}" in output
    assert f"+ {after.entry(first).description}" in output
    assert f"candidate 2: {before.version} -> {after.version}" in output
    (state,) = saved_states(labelled)
    assert f"2 calls, {state.cost.tokens:,} tokens" in output
    assert [c.id for c in state.candidates] == [0, 1, 2]
    assert state.pairs[0].count > 0
    assert ": bright" in prompt(server, 0)
    assert "annotated boxes on" in prompt(server, 0)
    assert "a spot that is dull all over" in prompt(server, 1)


def test_most_confused_pair_is_refined_by_default(
    dsmoe: Run, model: ScriptedAnswers, labelled: Workspace
) -> None:
    model.script = [pair_answer("dull", "dull")]
    output = dsmoe("refine", "--pairs", "1", "--rounds", "1")
    (state,) = saved_states(labelled)
    assert len(state.pairs) == 1
    assert state.pairs[0].title in output


def test_worse_descriptions_change_nothing_and_a_finished_refinement_sends_no_request(
    dsmoe: Run, server: OpenAIServer, model: ScriptedAnswers, labelled: Workspace
) -> None:
    first, second = pair_of(labelled)
    before = (labelled.path / "classes.yaml").read_bytes()
    model.script = [pair_answer("dull", "dull"), pair_answer("grey", "grey")]
    options = ("--pair", f"{first},{second}", "--rounds", "2")
    dsmoe("refine", *options)
    assert "2 tried, 2 calls" in dsmoe("refine", *options)
    assert len(server.bodies) == 2
    assert (labelled.path / "classes.yaml").read_bytes() == before


def test_refinement_stops_at_the_token_budget_and_continues_with_a_larger_one(
    dsmoe: Run, server: OpenAIServer, model: ScriptedAnswers, labelled: Workspace
) -> None:
    options = ("--pair", ",".join(pair_of(labelled)), "--rounds", "2", "--tokens")
    model.script = [pair_answer("dull", "dull"), pair_answer("grey", "grey")]
    for _ in range(2):
        assert "; 1 call, " in dsmoe("refine", *options, "1")
        assert len(server.bodies) == 1
    assert "; 2 calls, " in dsmoe("refine", *options, "100000")


def test_server_failure_keeps_the_class_book_and_the_next_run_continues(
    dsmoe: Run, model: ScriptedAnswers, labelled: Workspace
) -> None:
    first, second = pair_of(labelled)
    before = (labelled.path / "classes.yaml").read_bytes()
    model.script = [pair_answer(KEYWORDS[first], KEYWORDS[second])]
    options = ("--pair", f"{first},{second}", "--rounds", "2")
    output = dsmoe("refine", *options, code=2)
    assert ": 1 call, " in output
    (state,) = saved_states(labelled)
    assert f"refine/{state.id}.json" in output
    assert (labelled.path / "classes.yaml").read_bytes() == before
    assert len(state.candidates) == 2
    model.script = [pair_answer("dull", "dull")]
    assert "1 tried, 1 call" in dsmoe("refine", *options)
    assert [len(state.candidates) for state in saved_states(labelled)] == [3]
    assert KEYWORDS[first] in book_of(labelled).entry(first).description


def test_invalid_answers_are_an_error_and_keep_the_class_book(
    dsmoe: Run, model: ScriptedAnswers, labelled: Workspace
) -> None:
    before = (labelled.path / "classes.yaml").read_bytes()
    model.script = ["no idea"] * 3
    assert "tiny" in dsmoe("refine", "--pair", ",".join(pair_of(labelled)), code=2)
    assert (labelled.path / "classes.yaml").read_bytes() == before


def test_refinement_begins_again_if_the_labels_changed(
    dsmoe: Run, model: ScriptedAnswers, labelled: Workspace
) -> None:
    options = ("--pair", ",".join(pair_of(labelled)), "--rounds", "1")
    model.script = [pair_answer("dull", "dull"), pair_answer("dull", "dull")]
    dsmoe("refine", *options)
    (state,) = saved_states(labelled)
    save_refinement(labelled, state.model_copy(update={"evaluator": "of other boxes"}))
    assert f"refinement {state.id} begins" in dsmoe("refine", *options)
    assert saved_states(labelled)[0].cost.calls == 0  # the answer is cached


def test_class_book_that_was_edited_meanwhile_is_not_overwritten(
    dsmoe: Run, server: OpenAIServer, model: ScriptedAnswers, labelled: Workspace
) -> None:
    first, second = pair_of(labelled)
    edited = book_of(labelled).with_description(second, "what Ada saw", "person", "Ada")

    def edit_and_reply(body: dict[str, Any]) -> tuple[int, Any]:
        edited.save(labelled.path / "classes.yaml")
        return model(body)

    server.reply = edit_and_reply
    model.script = [pair_answer(KEYWORDS[first], KEYWORDS[second])]
    assert edited.version in dsmoe("refine", "--pair", f"{first},{second}", "--rounds", "1", code=2)
    assert book_of(labelled) == edited


@pytest.mark.parametrize(
    ("options", "value"),
    [
        (("--pair", "rust"), "--pair is 'rust'"),
        (("--pair", "rust,Rust"), "the pair rust,Rust "),
        (("--pair", "rust,dent"), "class 'dent'"),
        (("--note", "rust"), "'rust'"),
    ],
)
def test_invalid_options_are_refused_before_the_first_request(
    dsmoe: Run, server: OpenAIServer, options: tuple[str, ...], value: str
) -> None:
    assert value in dsmoe("refine", *options, code=2)
    assert server.bodies == []


def test_refine_needs_a_champion(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    options = [str(workspace.path), "--llm", "http://127.0.0.1:9/v1", "--model", "tiny"]
    assert cli.run(["classes", "refine", *options]) == 2
    assert "champion" in capsys.readouterr().err


def test_damaged_refinement_file_is_named(dsmoe: Run, model: ScriptedAnswers, labelled: Workspace) -> None:
    options = ("--pair", ",".join(pair_of(labelled)), "--rounds", "1")
    model.script = [pair_answer("dull", "dull")]
    dsmoe("refine", *options)
    (path,) = (labelled.path / "refine").glob("*.json")
    path.write_text("{")
    assert path.name in dsmoe("refine", *options, code=2)
