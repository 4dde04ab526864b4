"""Settings of a workspace (``dsmoe.yaml``) and of the machine (environment variables).

No other module reads them. All models are frozen and forbid unknown names; a failed validation lists every
wrong setting in one message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
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
from dsmoe_core.errors import SettingsError, WorkspaceError
from prompts.class_entry import printable

FORMAT_VERSION = 2
"""Version of the workspace format: ``dsmoe.yaml``, the journal and the folders change it together."""
ENVIRONMENT_PREFIX = "DSMOE_"
MAX_PIXELS = 120_000_000
"""Default limit on the size of an image, in pixels."""


def _without_login(url: str) -> str:
    if "@" in urlsplit(url).netloc:
        raise ValueError("it contains a login, which messages would show; only a token is needed")
    return url


_Title = Annotated[str, AfterValidator(printable)]
_StudioUrl = Annotated[str, Field(pattern=r"^https?://"), AfterValidator(_without_login)]


class RoundSettings(Frozen):
    """How the images of a round are selected and what annotators are shown on them."""

    budget: int = Field(40, ge=1, description="images sent out in a round")
    acquisition: str = Field(
        "entropy",
        description="acquisition function that ranks the pool: a key of ACQUISITION_FUNCTIONS, see "
        "pipelines/rounds/acquisition",
    )
    random_share: float = Field(
        0.2, ge=0, le=1, description="share of the budget that is sampled at random: the control arm"
    )
    blind_share: float = Field(
        0.0, ge=0, le=1, description="share of the selected images that is shown without pre-annotations"
    )
    candidates: int | None = Field(
        None, ge=1, description="rank a random sample of the pool of this size; none: the whole pool"
    )
    pre_annotation_score: float = Field(
        0.3, ge=0, le=1, description="lowest score of a detection that is shown as pre-annotation"
    )
    max_pre_annotations: int = Field(
        50, ge=1, description="most pre-annotations on an image; those with the highest scores are shown"
    )


class GateSettings(Frozen):
    """The promotion gate: when a candidate replaces the champion."""

    checks: tuple[str, ...] = Field(
        ("min_gain",),
        description="checks that a candidate must pass, keys of GATE_CHECKS, see pipelines/rounds/gate.py; "
        "empty: every candidate is promoted",
    )
    min_gain: float = Field(
        0.0, ge=0, lt=1, description="mAP@.5:.95 must exceed the champion's by more than this"
    )


class StudioSettings(Frozen):
    """The labelling server. ``stub`` is a file instead of Label Studio, for dry runs."""

    kind: Literal["label-studio", "stub"] = "label-studio"
    port: int = Field(8080, ge=1, le=65535, description="or the next free one")
    ml_backend_port: int = Field(9090, ge=1, le=65535, description="or the next free one")
    url: _StudioUrl | None = Field(
        None, description="address of a running Label Studio; none: dsmoe starts its own"
    )
    document_root: Path | None = Field(
        None,
        description="folder that the server of url serves files from, which contains this workspace; "
        "none: the workspace",
    )
    consensus: Literal["latest", "majority", "union"] = Field(
        "latest",
        description="how several annotations of an image are merged: the latest one, boxes that the majority "
        "drew, or all boxes",
    )


class PackagedText(Frozen):
    """The packaged MiniLM sentence encoder: works offline, 384 wide."""

    kind: Literal["minilm"] = "minilm"


class TransformersText(Frozen):
    """A language model that transformers loads, such as deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B."""

    kind: Literal["transformers"] = "transformers"
    model: str = Field(description="ORG/NAME on the Hugging Face hub, or the absolute path of a folder")
    revision: str | None = Field(
        None, description="branch, tag or commit on the hub; a cached commit needs no connection"
    )
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    device_map: str | None = Field(None, description="cuda:1, auto, ...; none: the GPU if there is one")

    @field_validator("model")
    @classmethod
    def _does_not_depend_on_the_working_directory(cls, model: str) -> str:
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*|[/~].*", model):
            raise ValueError("expected ORG/NAME or the absolute path of a folder")
        return model


class ServerText(Frozen):
    """A server with an OpenAI-compatible /embeddings; its key is DSMOE_EMBEDDINGS_API_KEY."""

    kind: Literal["server"] = "server"
    url: str = Field(pattern=r"^https?://", description="address, .../v1")
    model: str = Field(min_length=1, description="name of the model on the server")
    timeout_s: float = Field(60.0, gt=0)


TextSettings = Annotated[PackagedText | TransformersText | ServerText, Field(discriminator="kind")]


class DetectorSettings(Frozen):
    """The detector and its training."""

    kind: str = Field(
        "ds-moe",
        description="detector backend: a key of DETECTOR_BACKENDS, see pipelines/detectors/registry.py; stub "
        "recognises classes by colour, for dry runs",
    )
    model: ModelConfig = ModelConfig()
    text_encoder: TextSettings = Field(
        PackagedText(),
        description="embeds the class descriptions; a model works only with the one it was trained with",
    )
    start: Literal["scratch", "mobile-sam", "imagenet-lite", "warm"] = Field(
        "scratch",
        description="initial weights of the image encoder: random, MobileSAM's (`dsmoe weights mobile-sam`), "
        "EfficientNet-Lite0's (`dsmoe weights imagenet-lite`), or pre-trained on synthetic images",
    )
    warm_start: str | None = Field(
        None,
        pattern="^[/~]",
        description="file made by `dsmoe pretrain`; none: the one that ships with dsmoe",
    )
    training: TrainingConfig = TrainingConfig()
    image_cache_gb: float = Field(
        8.0, ge=0, description="size of the cache of letterboxed images, in GB per image size; 0: no cache"
    )
    images_seen: tuple[int, ...] = Field(
        (4000,),
        min_length=1,
        description="training length of round 0, 1, ... in images; the last value holds for all later rounds",
    )
    distill_champion: bool = Field(False, description="rounds: the champion is the candidate's teacher, too")

    @model_validator(mode="after")
    def _start_fits_the_encoder(self) -> Self:
        model, start = self.model, self.start
        backbone = "efficientnet-lite0" if start == "imagenet-lite" else "tiny-vit"
        needs = {f"backbone {backbone}": model.backbone == backbone}
        needs |= {} if start == "scratch" else {"an ablation row from C on": model.mobile_sam}
        needs |= {"size base": model.size == "base"} if start == "mobile-sam" else {}
        if not all(needs.values()):
            raise ValueError(
                f"start is {start}, size {model.size}, backbone {model.backbone}, row {model.ablation}; "
                f"expected {', '.join(needs)}"
            )
        if self.warm_start is not None and self.start != "warm":
            raise ValueError(f"warm_start is given and start is {self.start}; expected warm")
        return self

    def training_for_round(self, number: int) -> TrainingConfig:
        """The training settings of a round: its own length and its own seed."""
        images_seen = self.images_seen[min(number, len(self.images_seen) - 1)]
        return self.training.model_copy(
            update={"images_seen": images_seen, "seed": self.training.seed + number}
        )


class WorkspaceSettings(Frozen):
    """The settings of a workspace, ``dsmoe.yaml``."""

    version: Literal[2] = 2  # FORMAT_VERSION
    title: _Title = Field(min_length=3, max_length=50, description="title of the project in Label Studio")
    seed: int = 42
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="larger images are put in quarantine")
    round: RoundSettings = RoundSettings()
    gate: GateSettings = GateSettings()
    studio: StudioSettings = StudioSettings()
    detector: DetectorSettings = DetectorSettings()
    tracking: Literal["mlflow", "none"] = Field(
        "mlflow", description="where training curves are stored: MLflow in tracking/, or not at all"
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``dsmoe.yaml``.

        Raises:
            WorkspaceError: it has another format version.
            SettingsError: it is not YAML, or settings are wrong; the message lists all of them.
        """
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{path} is not YAML: {' '.join(str(error).split())}", "Correct it."
            ) from error
        if not isinstance(raw, dict):
            raise SettingsError(f"{path} has no settings; expected names with values", "Correct it.")
        check_format_version(raw.get("version", FORMAT_VERSION), path)
        return validate_settings(cls, raw, str(path))

    def write(self, path: Path) -> None:
        """Write ``dsmoe.yaml`` atomically."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        atomic_write(path, "# Settings of this workspace; `dsmoe` checks them whenever it opens it.\n" + text)


def check_format_version(version: object, where: Path | str) -> None:
    """Refuse a workspace of another format version.

    Raises:
        WorkspaceError: the version is not ``FORMAT_VERSION``.
    """
    if version == FORMAT_VERSION:
        return
    remedy = "Open it with the dsmoe that made it."
    if isinstance(version, int) and version < FORMAT_VERSION:
        remedy = "Make a new workspace with `dsmoe init`, or open this one with dsmoe 0.1."
    raise WorkspaceError(
        f"{where} has workspace format version {version}; this dsmoe expects {FORMAT_VERSION}", remedy
    )


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
    studio_url: _StudioUrl | None = Field(
        None, description="address of a running Label Studio; overrides studio.url of dsmoe.yaml"
    )
    studio_token: SecretStr | None = Field(None, description="its token, a legacy or a personal access token")
    review_uri: str | None = Field(
        None, pattern=r"^mongodb(\+srv)?://", description="MongoDB for FiftyOne; none: FiftyOne's own"
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


_Model = TypeVar("_Model", bound=BaseModel)


def subprocess_environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment for another program: this process's without dsmoe's own variables, plus ``more``."""
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(ENVIRONMENT_PREFIX)}
    return inherited | dict(more)


def validate_settings(
    model: type[_Model],
    raw: Mapping[str, Any],
    where: str,
    variable_name: Callable[[str], str] = lambda path: path,
) -> _Model:
    """Validate settings; on failure one message lists every wrong setting.

    Args:
        model: pydantic model of the settings.
        raw: names and values as they were read.
        where: where they come from, for the message.
        variable_name: name of a setting in the message, by its dotted path.

    Raises:
        SettingsError: at least one setting is wrong.
    """
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        problems = "; ".join(_format_problem(dict(e), variable_name) for e in error.errors(include_url=False))
        raise SettingsError(f"{where} has wrong settings: {problems}", "Correct all of them.") from error


def _format_problem(error: Mapping[str, Any], variable_name: Callable[[str], str]) -> str:
    path = variable_name(".".join(str(part) for part in error["loc"])) or "settings"
    if error["type"] == "extra_forbidden":
        return f"{path} is not known"
    if error["type"] == "missing":
        return f"{path} is missing"
    secret = path.lower().endswith(("api_key", "token", "url", "uri"))  # an address may contain a login
    value = "" if secret or isinstance(error["input"], dict) else f" (got {error['input']!r})"
    return f"{path}: {error['msg'][0].lower()}{error['msg'][1:]}{value}"


SYNTHETIC_PX, SYNTHETIC_IMAGES_SEEN = 256, (400, 500, 700, 1400)
"""The demo on synthetic images: side of images and network input in pixels, training length of each round."""


class DemoPlan(Frozen):
    """Settings of a demo: rounds 0 to ``rounds`` with ``budget`` images each, sized for two CPU cores."""

    rounds: int = Field(3, ge=0, le=100)
    budget: int = Field(40, ge=1)
    seed: int = 42
    annotator: Literal["simulated", "human"] = "simulated"
    random_share: float = Field(0.2, ge=0, le=1)
    candidates: int | None = Field(400, ge=1)
    images_seen: tuple[int, ...] = (1500, 2000, 2500, 4000)
    start: Literal["scratch", "warm"] = Field(
        "scratch", description="initial weights of the image encoder, as detector.start"
    )
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    port: int = Field(8080, ge=1, le=65535)
    dry_run: bool = False
    synthetic: SyntheticKind = Field("pcb", description="kind of synthetic images, if no data is given")
    synthetic_train: int = Field(400, ge=1, description="synthetic images in the pool")
    synthetic_val: int = Field(100, ge=1, description="synthetic images in the test set")

    @model_validator(mode="after")
    def _candidates_cover_the_budget(self) -> Self:
        if self.candidates is not None and self.candidates < self.budget:
            raise ValueError(f"candidates is {self.candidates}; expected at least the budget, {self.budget}")
        return self

    def workspace_settings(self, title: str) -> WorkspaceSettings:
        """The settings of the demo's workspace."""
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
                start=self.start,
            ),
        )
