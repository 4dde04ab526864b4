"""Client of the language model that options and environment variables select."""

from __future__ import annotations

from pathlib import Path

from dsmoe_core.errors import SettingsError
from pipelines.settings.environment import Environment
from prompts.llm import CachedModel, CountingModel, OpenAIModel, TokenProgress


def connect_language_model(
    environment: Environment, url: str | None, name: str | None, *, on_token: TokenProgress | None = None
) -> OpenAIModel:
    """The language model of the options or, by default, of the environment.

    Args:
        environment: default address, model name, key and limits.
        url: of an OpenAI-compatible server, .../v1.
        name: of the model; by default the environment's, or the server's only model.
        on_token: called while a reply streams in.

    Raises:
        SettingsError: no address is given, or no name, and the server does not serve exactly one model.
        LanguageModelError: the address is malformed, or the server cannot be reached.
        PrerequisiteError: the package openai is not installed.
    """
    url, name = url or environment.llm_url, name or environment.llm_model
    if url is None:
        raise SettingsError("no language model server is given", "Set --llm or DSMOE_LLM_URL.")
    if name is None:
        name = _only_served_model(url, _model(environment, url, "(any)", None))
    return _model(environment, url, name, on_token)


def cached_model(model: CountingModel, workspace: Path, *, fresh: bool) -> CachedModel:
    """The model with its replies cached in the workspace.

    Args:
        model: the model.
        workspace: folder of the workspace.
        fresh: ignore cached replies; request new ones and cache them.
    """
    return CachedModel(model, workspace / "cache" / "answers", fresh=fresh)


def _model(environment: Environment, url: str, name: str, on_token: TokenProgress | None) -> OpenAIModel:
    key = environment.llm_api_key
    return OpenAIModel(
        url,
        name,
        api_key=key.get_secret_value() if key else None,
        timeout_s=environment.llm_timeout_s,
        thinking_tokens=environment.llm_thinking_tokens,
        on_token=on_token,
    )


def _only_served_model(url: str, model: OpenAIModel) -> str:
    try:
        names = model.served()
    finally:
        model.close()
    if len(names) != 1:
        raise SettingsError(
            f"{url} serves {len(names)} models ({', '.join(names[:9]) or 'none'}); expected one",
            "Select one with --model or DSMOE_LLM_MODEL.",
        )
    return names[0]
