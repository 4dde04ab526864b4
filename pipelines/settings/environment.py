"""Settings of the machine, from environment variables; no other module reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import platformdirs
from pydantic import Field, SecretStr

from dsmoe_core.config import Frozen
from pipelines.settings.studio import StudioUrl
from pipelines.settings.validation import validate_settings

ENVIRONMENT_PREFIX = "DSMOE_"


class Environment(Frozen):
    """Settings of the machine, from environment variables whose names start with ``DSMOE_``."""

    environments: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("dsmoe") / "environments",
        description="folder for the Python environments of services",
    )
    weights: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("dsmoe") / "weights",
        description="folder for pre-trained weights",
    )
    llm_url: str | None = Field(None, pattern=r"^https?://", description="OpenAI-compatible server, .../v1")
    llm_api_key: SecretStr | None = None
    llm_model: str | None = None
    embeddings_api_key: SecretStr | None = Field(None, description="key of the text encoder's server")
    studio_url: StudioUrl | None = Field(
        None, description="address of a running Label Studio; overrides studio.url of dsmoe.yaml"
    )
    studio_token: SecretStr | None = Field(None, description="its token, a legacy or a personal access token")
    review_uri: str | None = Field(
        None, pattern=r"^mongodb(\+srv)?://", description="MongoDB for FiftyOne; none: FiftyOne's own"
    )
    scheduled_workspace: Path | None = Field(
        None, description="workspace whose assets Dagster shows; `dsmoe schedule up` sets it"
    )
    llm_timeout_s: float = Field(
        120.0, gt=0, description="longest wait for the next token of a language model, in seconds"
    )
    llm_thinking_tokens: int | None = Field(
        None, ge=1, description="most tokens of reasoning, for servers with thinking_token_budget (vLLM)"
    )

    @classmethod
    def read(cls, variables: Mapping[str, str] | None = None) -> Self:
        """Read the variables, by default those of this process.

        Raises:
            SettingsError: variables are wrong or unknown; the message lists all of them.
        """
        variables = os.environ if variables is None else variables
        raw = {
            n.removeprefix(ENVIRONMENT_PREFIX).lower(): v
            for n, v in variables.items()
            if n.startswith(ENVIRONMENT_PREFIX) and v
        }
        return validate_settings(
            cls, raw, "the environment", variable_name=lambda path: ENVIRONMENT_PREFIX + path.upper()
        )


def threads_are_given() -> str | None:
    """The number of threads that the user gives to numeric libraries, OMP_NUM_THREADS; None: not given."""
    return os.environ.get("OMP_NUM_THREADS") or None


def own_process_environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process of dsmoe itself: this process's, plus ``more``."""
    return dict(os.environ) | dict(more)


def subprocess_environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment for another program: this process's without dsmoe's own variables, plus ``more``."""
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(ENVIRONMENT_PREFIX)}
    return inherited | dict(more)
