"""Options of the commands that use a language model, and the model that they select."""

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
    typer.Option(
        "--model",
        help="Name of the model; default: DSMOE_LLM_MODEL, or the server's model if it has one only.",
    ),
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Do not use cached answers; request new ones and cache them.")
]
NotesOption = Annotated[
    Path | None,
    typer.Option("--notes", metavar="FILE", help="Notes of experts: YAML with a text per class."),
]
NoteOption = Annotated[
    list[str] | None,
    typer.Option("--note", metavar="CLASS: TEXT", help="Note of an expert on one class; may be repeated."),
]


def language_model(
    llm: str | None, model: str | None, workspace: Path, progress: TerminalReporter, *, fresh: bool
) -> tuple[OpenAIModel, Callable[[CountingModel], CachedModel]]:
    """The model of the options or of the environment, and a function that adds the workspace's cache to it.

    Raises:
        SettingsError, LanguageModelError, PrerequisiteError: see pipelines.services.language_model.connect.
    """
    from pipelines.services.language_model.connect import cached_model, connect_language_model
    from pipelines.settings.environment import Environment

    client = connect_language_model(Environment.read(), llm, model, on_token=progress.token_progress)
    return client, partial(cached_model, workspace=workspace, fresh=fresh)
