"""The language model that a command asks, from its options and the environment."""

from __future__ import annotations

from pathlib import Path

from dsmoe_core.errors import SettingsError
from pipelines.settings import Environment
from prompts.llm import CachedModel, CountingModel, OpenAIModel, TokenProgress


def connect_language_model(
    environment: Environment, url: str | None, name: str | None, *, on_token: TokenProgress | None = None
) -> OpenAIModel:
    """The model of these options, else of the environment; where only one is served, that one.

    Raises:
        SettingsError: neither says which server, or the server has several models and neither says which.
        LanguageModelError: the address is none, or the server cannot be reached.
        PrerequisiteError: the package openai is missing.
    """
    url, name = url or environment.llm_url, name or environment.llm_model
    if url is None:
        raise SettingsError("no language model is known", "Give its server with --llm or DSMOE_LLM_URL.")
    if name is None:
        name = _only_one(url, _model(environment, url, "(any)", None))
    return _model(environment, url, name, on_token)


def cached_model(model: CountingModel, workspace: Path, *, fresh: bool) -> CachedModel:
    """The same, with its answers kept in a workspace's cache."""
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


def _only_one(url: str, model: OpenAIModel) -> str:
    try:
        names = model.served()
    finally:
        model.close()
    if len(names) != 1:
        raise SettingsError(
            f"{url} has {len(names)} models ({', '.join(names[:9]) or 'none'}); expected one",
            "Name the one to ask with --model or DSMOE_LLM_MODEL.",
        )
    return names[0]
