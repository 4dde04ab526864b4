"""The DS-MoE detector as a detector backend. Torch is imported when the detector is used first."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import platformdirs

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.digest import sha256_of
from dsmoe_core.knockout.part_report import PartReport
from dsmoe_core.schema import ImageRecord, LabelledImage, Prediction, Vocabulary
from pipelines.detectors.backend import EVALUATION_MIN_SCORE, PredictFunction, TrainingProgress
from pipelines.detectors.machine_speed import with_measured_precision
from pipelines.settings.detector import (
    DetectorSettings,
    PackagedText,
    ServerText,
    StartName,
    TextSettings,
    TransformersText,
    has_preset_encoder,
)
from pipelines.settings.environment import Environment
from pipelines.settings.validation import validate_settings
from pipelines.workspace.registry import as_plain_dict
from pipelines.workspace.workspace import Workspace

if TYPE_CHECKING:
    from dsmoe_core.data.letterbox_cache import CacheConfig
    from dsmoe_core.text_encoders.protocol import TextEncoder

KIND = "ds-moe"
"""Name of this backend in the settings."""


class DSMoEBackend:
    """The DS-MoE detector.

    Args:
        model: shape of the network; its ``text_width`` is replaced by the width of the text encoder.
        cache: folder for text embeddings.
        text: settings of the text encoder; by default the packaged one.
        api_key: key of a text encoder behind a server.
        encoder_from: file of the image encoder's initial weights; None: random weights.
        images: cache of letterboxed images; None: no cache.
        intensity_max: value that is white in the images of more than 8 bits; stored with the models.
        second_selection: also run the next-best experts, for the uncertainty score ``routing``.
    """

    def __init__(
        self,
        model: ModelConfig,
        cache: Path,
        text: TextSettings | None = None,
        *,
        api_key: str | None = None,
        encoder_from: Path | None = None,
        images: CacheConfig | None = None,
        intensity_max: int | None = None,
        second_selection: bool = False,
    ) -> None:
        self._second_selection = second_selection
        self._model = model
        self._cache = cache
        self._text = text or PackagedText()
        self._api_key = api_key
        self._encoder_from = encoder_from
        self._images = images
        self._intensity_max = intensity_max

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The text encoder with a cache of its embeddings; its weights are loaded when it is used first."""
        from dsmoe_core.text_encoders.cached import CachedTextEncoder

        return CachedTextEncoder(make_text_encoder(self._text, self._api_key), self._cache)

    def start_weights(self, start_from: Path | None) -> Path | None:
        """File of the weights that a training starts from; None: random weights.

        Args:
            start_from: folder of a model, whose weights come before the initial ones.
        """
        from dsmoe_core.checkpoint import WEIGHTS

        return start_from / WEIGHTS if start_from is not None else self._encoder_from

    def freezes_encoder(self, training: TrainingConfig, start_from: Path | None) -> bool:
        """Whether a training freezes the image encoder: the settings say so, and it has trained weights.

        Args:
            start_from: folder of the model that it starts from; None: initial weights.
        """
        return training.encoder == "frozen" and self.start_weights(start_from) is not None

    def recipe(self, start_from: Path | None) -> list[Any]:
        """What determines a training apart from its data and settings, as JSON values.

        Args:
            start_from: folder of the model that it starts from; None: initial weights.
        """
        weights = self.start_weights(start_from)
        digest = sha256_of(weights) if weights is not None and weights.is_file() else None
        return [self._model.model_dump(mode="json"), self._text.model_dump(mode="json"), digest]

    def fit(
        self,
        *,
        images: Sequence[LabelledImage],
        vocabulary: Vocabulary,
        training: TrainingConfig,
        out: Path,
        start_from: Path | None,
        teacher: Path | None = None,
        progress: TrainingProgress | None = None,
    ) -> dict[str, Any]:
        """See ``DetectorBackend.fit``; the summary has the ``precision`` and the ``threads``, too."""
        import torch

        from dsmoe_core.train import fit
        from dsmoe_core.training.precision import training_precision

        for name in ("lightning.fabric", "lightning.pytorch"):  # they log the precision of every training
            logging.getLogger(name).setLevel(logging.WARNING)
        encoder = self.text_encoder
        shape = {**self._model.model_dump(), "text_width": encoder.width}
        model = validate_settings(ModelConfig, shape, f"detector.model with text encoder {encoder.name}")
        training = with_measured_precision(training, model, out)
        summary = fit(
            images=images,
            vocabulary=vocabulary,
            text_encoder=encoder,
            model=model,
            training=training,
            out=out,
            start_from=start_from,
            encoder_from=self._encoder_from,
            teacher=teacher,
            cache=self._images,
            intensity_max=self._intensity_max,
            progress=progress,
        )
        self._store_training_features(out, vocabulary, images)
        return {
            **as_plain_dict(summary),
            "text_encoder": encoder.name,
            "precision": training_precision(training),
            "threads": torch.get_num_threads(),
        }

    def _store_training_features(
        self, model: Path, vocabulary: Vocabulary, images: Sequence[LabelledImage]
    ) -> None:
        """Store the features of training boxes, for the uncertainty score ``novelty``.

        Of several processes on a machine, the first one does it.
        """
        import torch.distributed as dist

        if dist.get_node_local_rank(0) != 0:
            return
        from dsmoe_core.predict import Detector
        from dsmoe_core.uncertainty.training_features import training_features

        detector = Detector.load(model, self.text_encoder, cache=self._images)
        detector.set_vocabulary(vocabulary)
        training_features(detector, images, vocabulary.names).save(model)

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        """See ``DetectorBackend.predict``."""
        from dsmoe_core.predict import Detector

        second = self._second_selection
        detector = Detector.load(model, self.text_encoder, cache=self._images, second_selection=second)
        detector.set_vocabulary(vocabulary)
        yield from detector.predict(images)

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        """See ``DetectorBackend.load``."""
        from dsmoe_core.predict import Detector

        detector = Detector.load(model, self.text_encoder, second_selection=self._second_selection)
        detector.set_vocabulary(vocabulary)
        return partial(detector.predict, min_score=EVALUATION_MIN_SCORE)

    def measure_parts(
        self, model: Path, vocabulary: Vocabulary, truth: Sequence[LabelledImage]
    ) -> PartReport | None:
        """See ``DetectorBackend.measure_parts``; None for a row of the ablation without all stages."""
        from dsmoe_core.knockout.report import measure_main_parts
        from dsmoe_core.predict import Detector

        detector = Detector.load(model, self.text_encoder)
        detector.set_vocabulary(vocabulary)
        return measure_main_parts(detector, truth, vocabulary.names)


def make_text_encoder(text: TextSettings, api_key: str | None = None) -> TextEncoder:
    """The text encoder of the settings; no weights are loaded and no server is called yet."""
    if isinstance(text, ServerText):
        from dsmoe_core.text_encoders.server import ServerEncoder

        return ServerEncoder(text.url, text.model, api_key=api_key, timeout_s=text.timeout_s)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # the step that loads the weights has its own
    transformers_logging.set_verbosity_error()  # it warns about an unused language head
    if isinstance(text, TransformersText):
        from dsmoe_core.text_encoders.pretrained import PretrainedEncoder

        return PretrainedEncoder(
            Path(text.model).expanduser(),
            revision=text.revision,
            dtype=text.dtype,
            device_map=text.device_map,
        )
    from dsmoe_core.text_encoders.sentence import SentenceEncoder

    return SentenceEncoder()


def dsmoe_backend(
    workspace: Workspace | None,
    environment: Environment,
    *,
    intensity_max: int | None = None,
    model: ModelConfig | None = None,
    start: StartName = "scratch",
    cache: Path | None = None,
) -> DSMoEBackend:
    """The DS-MoE detector with the settings of a workspace.

    Args:
        workspace: None, or one with another kind of detector: default settings, for models of any folder.
        intensity_max: stored with the models; None: the workspace's.
        model: network of the models to train; None: the workspace's.
        start: initial weights of the image encoder, where there is no workspace.
        cache: folder for letterboxed images and features, where there is no workspace; None: no cache.
    """
    if workspace is None or workspace.settings.detector.kind != KIND:
        from dsmoe_core.data.letterbox_cache import CacheConfig

        texts, network = platformdirs.user_cache_path("dsmoe") / "texts", model or ModelConfig()
        weights = initial_weights(start, network.size, environment)
        images = CacheConfig(cache) if cache else None
        return DSMoEBackend(network, texts, encoder_from=weights, images=images, intensity_max=intensity_max)
    settings, key = workspace.settings.detector, environment.embeddings_api_key
    if model is not None:
        settings = _with_model(settings, model)
    warm_start = settings.warm_start_file(workspace.path)
    return DSMoEBackend(
        settings.model,
        workspace.path / "cache" / "texts",
        settings.text_encoder,
        api_key=key.get_secret_value() if key else None,
        encoder_from=initial_weights(settings.start, settings.model.size, environment, warm_start),
        images=image_cache(workspace),
        intensity_max=intensity_max or workspace.intensity_max(),
        second_selection=settings.second_selection,
    )


def _with_model(settings: DetectorSettings, model: ModelConfig) -> DetectorSettings:
    """The settings with another network. One with another image encoder starts from its packaged weights."""
    changes: dict[str, Any] = {"model": model}
    if (model.size, model.backbone) != (settings.model.size, settings.model.backbone):
        changes |= {"start": packaged_start(model), "warm_start": None}
    return settings.model_copy(update=changes)


def packaged_start(model: ModelConfig) -> StartName:
    """Initial weights of the image encoder that come with an installed package, for a given network.

    ``imagenet-lite`` for EfficientNet-Lite0; ``warm`` for a preset's TinyViT if this package has a warm start
    for the size; ``scratch`` otherwise, and for ablation rows with another encoder.
    """
    from dsmoe_core.warm_start.checkpoint import shipped_path

    if not model.mobile_sam:
        return "scratch"
    if model.backbone == "efficientnet-lite0":
        return "imagenet-lite"
    return "warm" if has_preset_encoder(model) and shipped_path(model.size).is_file() else "scratch"


def image_cache(workspace: Workspace) -> CacheConfig | None:
    """The cache of letterboxed images of a workspace; None: its settings turn it off."""
    from dsmoe_core.data.letterbox_cache import CacheConfig

    max_gb = workspace.settings.detector.image_cache_gb
    return CacheConfig(workspace.path / "cache" / "squares", int(max_gb * 1e9)) if max_gb else None


def initial_weights(
    start: StartName, size: Literal["nano", "base"], environment: Environment, warm_start: Path | None = None
) -> Path | None:
    """File of the image encoder's initial weights; only the first training needs it to exist.

    Args:
        warm_start: file to use for ``warm`` instead of the packaged one.
    """
    if start == "scratch":
        return None
    if start == "mobile-sam":
        from dsmoe_core.mobile_sam.weights import FILE

        return environment.weights / FILE
    if start == "imagenet-lite":
        from dsmoe_core.efficientnet.weights import FILE as IMAGENET_LITE

        return environment.weights / IMAGENET_LITE
    from dsmoe_core.warm_start.checkpoint import shipped_path

    return warm_start or shipped_path(size)
