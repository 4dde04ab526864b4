"""Which language model a command asks, and what experts tell it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prompts.llm import OpenAIModel

LlmOption = Annotated[
    str | None,
    typer.Option("--llm", metavar="URL", help="OpenAI-compatible server; default: DSMOE_LLM_URL."),
]
LlmModelOption = Annotated[
    str | None, typer.Option("--model", help="Name of the model; default: DSMOE_LLM_MODEL.")
]
NotesOption = Annotated[
    Path | None,
    typer.Option("--notes", metavar="FILE", help="What experts know: YAML, a text per class."),
]
NoteOption = Annotated[
    list[str] | None,
    typer.Option("--note", metavar="CLASS: TEXT", help="The same for one class; may be repeated."),
]


def language_model(llm: str | None, model: str | None) -> OpenAIModel:
    """The model of the options or of the environment.

    Raises:
        SettingsError: neither says which.
        LanguageModelError: the address is none.
        PrerequisiteError: the package openai is missing.
    """
    from dsmoe_core.errors import SettingsError
    from pipelines.settings import Environment
    from prompts.llm import OpenAIModel

    environment = Environment.read()
    url, wanted = llm or environment.llm_url, model or environment.llm_model
    if url is None:
        raise SettingsError("no language model is known", "Give its server with --llm or DSMOE_LLM_URL.")
    if wanted is None:
        raise SettingsError(
            f"{url} may have several models", "Name the one to ask with --model or DSMOE_LLM_MODEL."
        )
    key = environment.llm_api_key.get_secret_value() if environment.llm_api_key else None
    return OpenAIModel(url, wanted, api_key=key, timeout_s=environment.llm_timeout_s)
