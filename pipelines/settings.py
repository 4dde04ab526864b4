"""What can be set: a workspace's dsmoe.yaml and the machine's environment variables; the only reader of both.

Frozen, extras forbidden, and every error is reported at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import platformdirs
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import Frozen, ModelConfig, SyntheticKind, TrainingConfig
from dsmoe_core.errors import SettingsError

PREFIX = "DSMOE_"
MAX_PIXELS = 120_000_000
"""Of an image, where nothing else is set."""


def _without_login(url: str) -> str:
    if "@" in urlsplit(url).netloc:
        raise ValueError("it has a login in it, which messages would show; a token is all that is needed")
    return url


_StudioUrl = Annotated[str, Field(pattern=r"^https?://"), AfterValidator(_without_login)]


class RoundSettings(Frozen):
    """How images are chosen for a round and what is shown on them."""

    budget: int = Field(40, ge=1, description="images sent out in a round")
    random_share: float = Field(
        0.2, ge=0, le=1, description="share of the budget drawn at random: the control arm"
    )
    blind_share: float = Field(
        0.0, ge=0, le=1, description="share of what a model chose that is shown without pre-annotations"
    )
    candidates: int | None = Field(
        None, ge=1, description="rank a random part of the pool of this size; none: all of it"
    )
    pre_annotation_score: float = Field(
        0.3, ge=0, le=1, description="show detections from this score up as pre-annotations"
    )
    max_pre_annotations: int = Field(
        50, ge=1, description="show at most so many boxes on an image, best first"
    )


class GateSettings(Frozen):
    """When a candidate becomes champion."""

    min_gain: float = Field(
        0.0, ge=0, lt=1, description="mAP@.5:.95 must exceed the champion's by more than this"
    )


class StudioSettings(Frozen):
    """The labelling server. ``stub`` is a file instead of Label Studio, for dry runs."""

    kind: Literal["label-studio", "stub"] = "label-studio"
    port: int = Field(8080, ge=1, le=65535)
    ml_backend_port: int = Field(9090, ge=1, le=65535, description="of live pre-annotations and smart tools")
    url: _StudioUrl | None = Field(
        None, description="of a Label Studio that runs already; none: one of our own"
    )
    document_root: Path | None = Field(
        None, description="the folder with this workspace that the server of url shows; none: the workspace"
    )
    consensus: Literal["latest", "majority", "union"] = Field(
        "latest",
        description="of several people on an image: the latest counts, boxes that most drew, or all boxes",
    )


class PackagedText(Frozen):
    """The packaged MiniLM: offline, 384 wide."""

    kind: Literal["minilm"] = "minilm"


class TransformersText(Frozen):
    """A language model that transformers loads, such as deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B."""

    kind: Literal["transformers"] = "transformers"
    model: str = Field(description="ORG/NAME on the hub, or the absolute path of a folder")
    revision: str | None = Field(
        None, description="branch, tag or commit on the hub; a commit needs no connection once it is there"
    )
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    device_map: str | None = Field(None, description="cuda:1, auto, ...; none: the GPU, where there is one")

    @field_validator("model")
    @classmethod
    def _is_found_from_anywhere(cls, model: str) -> str:
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*|[/~].*", model):
            raise ValueError("expected ORG/NAME or the absolute path of a folder")
        return model


class ServerText(Frozen):
    """A server with an OpenAI-compatible /embeddings; its key is DSMOE_EMBEDDINGS_API_KEY."""

    kind: Literal["server"] = "server"
    url: str = Field(pattern=r"^https?://", description=".../v1")
    model: str = Field(min_length=1, description="as the server names it")
    timeout_s: float = Field(60.0, gt=0)


TextSettings = Annotated[PackagedText | TransformersText | ServerText, Field(discriminator="kind")]


class DetectorSettings(Frozen):
    """The detector. ``stub`` knows classes by their colour, for dry runs."""

    kind: Literal["ds-moe", "stub"] = "ds-moe"
    model: ModelConfig = ModelConfig()
    text_encoder: TextSettings = Field(
        PackagedText(),
        description="reads the class book; a model works with the one that it was trained with",
    )
    start: Literal["scratch", "mobile-sam", "warm"] = Field(
        "scratch",
        description="the image encoder's first weights: fresh, MobileSAM's (`dsmoe weights mobile-sam`), or "
        "learned from drawn images",
    )
    warm_start: str | None = Field(
        None, pattern="^[/~]", description="file of `dsmoe pretrain`; none: the one that comes with dsmoe"
    )
    training: TrainingConfig = TrainingConfig()
    image_cache_gb: float = Field(
        8.0, ge=0, description="keep so much of letter-boxed images per way of reading them; 0: none"
    )
    images_seen: tuple[int, ...] = Field(
        (4000,),
        min_length=1,
        description="training length of round 0, 1, ...; the last one holds from there on",
    )

    @model_validator(mode="after")
    def _encoder_is_mobile_sam_s(self) -> Self:
        if self.start == "mobile-sam" and (self.model.size != "base" or not self.model.mobile_sam):
            raise ValueError(
                f"start is mobile-sam, model is {self.model.size}, row {self.model.ablation}; "
                "expected size base and a row from C on, whose encoder it is"
            )
        return self

    @model_validator(mode="after")
    def _encoder_is_tiny_vit(self) -> Self:
        if self.start == "warm" and not self.model.mobile_sam:
            raise ValueError(
                f"start is warm, model is row {self.model.ablation}; "
                "expected a row from C on, whose encoder it is"
            )
        if self.warm_start is not None and self.start != "warm":
            raise ValueError(f"warm_start is given and start is {self.start}; expected warm")
        return self

    def training_for_round(self, number: int) -> TrainingConfig:
        """The training of a round: its length, and a seed of its own."""
        seen = self.images_seen[min(number, len(self.images_seen) - 1)]
        return self.training.model_copy(update={"images_seen": seen, "seed": self.training.seed + number})


class WorkspaceSettings(Frozen):
    """dsmoe.yaml."""

    version: Literal[1] = 1
    title: str = Field(min_length=3, max_length=50, description="of the project in Label Studio")
    seed: int = 42
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="larger images go to quarantine")
    round: RoundSettings = RoundSettings()
    gate: GateSettings = GateSettings()
    studio: StudioSettings = StudioSettings()
    detector: DetectorSettings = DetectorSettings()
    tracking: Literal["mlflow", "none"] = Field(
        "mlflow", description="where the curves of trainings are kept: MLflow in tracking/, or nowhere"
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read dsmoe.yaml.

        Raises:
            SettingsError: it is no YAML, or settings are wrong; all of them are named.
        """
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{path} is no YAML: {' '.join(str(error).split())}", "Correct it."
            ) from error
        if not isinstance(raw, dict):
            raise SettingsError(f"{path} holds no settings; expected names with values", "Correct it.")
        return validate_settings(cls, raw, str(path))

    def write(self, path: Path) -> None:
        """Write dsmoe.yaml, whole or not at all."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        atomic_write(path, "# Settings of this workspace; `dsmoe` checks them whenever it opens it.\n" + text)


class Environment(Frozen):
    """What belongs to the machine, from environment variables that begin with DSMOE_."""

    environments: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("dsmoe") / "environments",
        description="where the environments of services are built",
    )
    weights: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("dsmoe") / "weights",
        description="where pretrained weights are kept",
    )
    llm_url: str | None = Field(
        None, pattern=r"^https?://", description="an OpenAI-compatible server, .../v1"
    )
    llm_api_key: SecretStr | None = None
    llm_model: str | None = None
    embeddings_api_key: SecretStr | None = Field(None, description="of a text encoder behind a server")
    studio_url: _StudioUrl | None = Field(
        None, description="a Label Studio that runs already, before dsmoe.yaml's"
    )
    studio_token: SecretStr | None = Field(None, description="for it: legacy or personal access token")
    review_uri: str | None = Field(
        None, pattern=r"^mongodb(\+srv)?://", description="your MongoDB for FiftyOne"
    )
    llm_timeout_s: float = Field(120.0, gt=0, description="the longest silence of a language model")
    llm_thinking_tokens: int | None = Field(
        None, ge=1, description="most tokens of reasoning, for servers that know thinking_token_budget (vLLM)"
    )

    @classmethod
    def read(cls, variables: Mapping[str, str] | None = None) -> Self:
        """Read them, from the process by default.

        Raises:
            SettingsError: variables are wrong or not known; all of them are named.
        """
        found = os.environ if variables is None else variables
        raw = {n.removeprefix(PREFIX).lower(): v for n, v in found.items() if n.startswith(PREFIX) and v}
        return validate_settings(cls, raw, "the environment", naming=lambda path: PREFIX + path.upper())


_Model = TypeVar("_Model", bound=BaseModel)


def subprocess_environment(more: Mapping[str, str]) -> dict[str, str]:
    """The variables for another program: ours, without those that are meant for us alone, and ``more``."""
    return {n: v for n, v in os.environ.items() if not n.startswith(PREFIX)} | dict(more)


def disable_mlflow_telemetry() -> None:
    """Before it is imported: it reports its use to its makers, unless the environment says not to."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


def validate_settings(
    model: type[_Model], raw: Mapping[str, Any], where: str, naming: Any = lambda path: path
) -> _Model:
    """Validate, with one line that names every wrong setting.

    Raises:
        SettingsError: at least one setting is wrong.
    """
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        problems = "; ".join(_problem(dict(e), naming) for e in error.errors(include_url=False))
        raise SettingsError(f"{where} has wrong settings: {problems}", "Correct all of them.") from error


def _problem(error: Mapping[str, Any], naming: Any) -> str:
    path = naming(".".join(str(part) for part in error["loc"])) or "settings"
    if error["type"] == "extra_forbidden":
        return f"{path} is not known"
    if error["type"] == "missing":
        return f"{path} is missing"
    secret = path.lower().endswith(("api_key", "token", "url", "uri"))  # an address may have a login in it
    value = "" if secret or isinstance(error["input"], dict) else f" (got {error['input']!r})"
    return f"{path}: {error['msg'][0].lower()}{error['msg'][1:]}{value}"


SYNTHETIC_IMAGES_SEEN = (900, 1000, 1200, 1600)
"""Training length of the demo's rounds on drawn boards, which are easier than real ones."""


class DemoPlan(Frozen):
    """A whole demo: rounds 0..``rounds`` with ``budget`` images each, sized for two cores.

    With the defaults 160 images are labelled: 40 in the seed round and in each of the rounds 1 to 3.
    """

    rounds: int = Field(3, ge=0, le=100)
    budget: int = Field(40, ge=1)
    seed: int = 42
    annotator: Literal["simulated", "human"] = "simulated"
    random_share: float = Field(0.2, ge=0, le=1)
    candidates: int | None = Field(400, ge=1)
    images_seen: tuple[int, ...] = (1500, 2000, 2500, 4000)
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    port: int = Field(8080, ge=1, le=65535)
    dry_run: bool = False
    synthetic: SyntheticKind = Field("pcb", description="kind of images to synthesise where no data is given")
    synthetic_train: int = Field(400, ge=1, description="images of the pool where the demo draws its own")
    synthetic_val: int = Field(100, ge=1, description="images of the test set where the demo draws its own")

    @model_validator(mode="after")
    def _pool_is_enough(self) -> Self:
        if self.candidates is not None and self.candidates < self.budget:
            raise ValueError(f"candidates is {self.candidates}; expected at least the budget, {self.budget}")
        return self

    def workspace_settings(self, title: str) -> WorkspaceSettings:
        """The settings of the workspace that this demo makes."""
        kind: Literal["label-studio", "stub"] = "stub" if self.dry_run else "label-studio"
        return WorkspaceSettings(
            title=title,
            seed=self.seed,
            round=RoundSettings(
                budget=self.budget, random_share=self.random_share, candidates=self.candidates
            ),
            studio=StudioSettings(kind=kind, port=self.port),
            detector=DetectorSettings(
                kind="stub" if self.dry_run else "ds-moe",
                model=self.model,
                training=self.training,
                images_seen=self.images_seen,
            ),
        )
