"""Which language model a command asks, and what experts tell it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.cli.terminal import TerminalReporter
    from prompts.llm import CachedModel, CountingModel, OpenAIModel

LlmOption = Annotated[
    str | None,
    typer.Option("--llm", metavar="URL", help="OpenAI-compatible server; default: DSMOE_LLM_URL."),
]
LlmModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Name of the model; default: DSMOE_LLM_MODEL, or the only one there is."),
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Ask anew; else answers to the same questions are taken again.")
]
NotesOption = Annotated[
    Path | None,
    typer.Option("--notes", metavar="FILE", help="What experts know: YAML, a text per class."),
]
NoteOption = Annotated[
    list[str] | None,
    typer.Option("--note", metavar="CLASS: TEXT", help="The same for one class; may be repeated."),
]


def language_model(
    llm: str | None, model: str | None, workspace: Path, progress: TerminalReporter, *, fresh: bool
) -> tuple[OpenAIModel, Callable[[CountingModel], CachedModel]]:
    """The model of the options or of the environment, and what keeps its answers in the workspace.

    Raises:
        SettingsError, LanguageModelError, PrerequisiteError: see pipelines.services.language_model.connect.
    """
    from pipelines.services.language_model.connect import cached_model, connect_language_model
    from pipelines.settings import Environment

    asked = connect_language_model(Environment.read(), llm, model, heard=progress.heard)
    return asked, partial(cached_model, workspace=workspace, fresh=fresh)
