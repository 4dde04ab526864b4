"""What the loop asks of a detector: train, look at images, be judged. No torch before it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.errors import ModelError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import ImageRecord, LabelledImage, Prediction, Vocabulary
from pipelines.settings import PackagedText, ServerText, TextSettings, TransformersText, validate_settings
from pipelines.workspace.registry import Metrics, plain

if TYPE_CHECKING:
    from dsmoe_core.data.letterbox_cache import CacheConfig
    from dsmoe_core.text_encoders.protocol import TextEncoder

TrainingProgress = Callable[[int, int, Mapping[str, float]], None]
PredictFunction = Callable[[Iterable[ImageRecord]], Iterator[Prediction]]
EVALUATION_MIN_SCORE = 0.001
"""Who points at a place asks what may be there, not what is sure to be; mAP is a mean over all recalls."""


class DetectorBackend(Protocol):
    """A detector that can be trained. Models are folders; both calls may be repeated after a kill."""

    def fit(
        self,
        *,
        images: Sequence[LabelledImage],
        vocabulary: Vocabulary,
        training: TrainingConfig,
        out: Path,
        start_from: Path | None,
        progress: TrainingProgress | None = None,
    ) -> dict[str, Any]:
        """Train, write the model into ``out``, and return a summary for its card.

        Interrupted and called again with the same arguments, it ends with a whole model.

        Args:
            start_from: folder of the model to start from; None: from scratch.
            progress: called with (step, steps, figures by name: losses, learning_rate, gradient_norm).
        """
        ...

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        """What the model in this folder finds, image by image in the same order.

        Raises:
            ModelError: there is no model in the folder, or it does not fit.
        """
        ...

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        """The model in memory, to be asked again and again; faint detections are told too.

        Raises:
            ModelError: there is no model in the folder, or it does not fit.
        """
        ...


class DSMoEBackend:
    """The DS-MoE detector.

    Args:
        model: shape of the network, whose ``text_width`` gives way to that of the text encoder.
        cache: folder for embedded texts.
        text: which text encoder.
        api_key: of a text encoder behind a server.
        encoder_from: file of the image encoder's first weights; none: fresh ones.
        images: where letter-boxed images are kept; none: nowhere.
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
    ) -> None:
        self._model = model
        self._cache = cache
        self._text = text or PackagedText()
        self._api_key = api_key
        self._encoder_from = encoder_from
        self._images = images

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """Reads class books; nothing is loaded yet."""
        from dsmoe_core.text_encoders.cached import CachedTextEncoder

        return CachedTextEncoder(make_text_encoder(self._text, self._api_key), self._cache)

    def fit(
        self,
        *,
        images: Sequence[LabelledImage],
        vocabulary: Vocabulary,
        training: TrainingConfig,
        out: Path,
        start_from: Path | None,
        progress: TrainingProgress | None = None,
    ) -> dict[str, Any]:
        from dsmoe_core.train import fit

        for chatty in ("lightning.fabric", "lightning.pytorch"):  # they tell the precision every time
            logging.getLogger(chatty).setLevel(logging.WARNING)
        encoder = self.text_encoder
        shape = {**self._model.model_dump(), "text_width": encoder.width}
        summary = fit(
            images=images,
            vocabulary=vocabulary,
            text_encoder=encoder,
            model=validate_settings(ModelConfig, shape, f"detector.model with text encoder {encoder.name}"),
            training=training,
            out=out,
            start_from=start_from,
            encoder_from=self._encoder_from,
            cache=self._images,
            progress=progress,
        )
        return {**plain(summary), "text_encoder": encoder.name}

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        from dsmoe_core.predict import Detector

        detector = Detector.load(model, self.text_encoder, cache=self._images)
        detector.set_vocabulary(vocabulary)
        yield from detector.predict(images)

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        from dsmoe_core.predict import Detector

        detector = Detector.load(model, self.text_encoder)
        detector.set_vocabulary(vocabulary)
        return partial(detector.predict, min_score=EVALUATION_MIN_SCORE)


def make_text_encoder(text: TextSettings, api_key: str | None = None) -> TextEncoder:
    """The text encoder of the settings; nothing is loaded or asked yet."""
    if isinstance(text, ServerText):
        from dsmoe_core.text_encoders.server import ServerEncoder

        return ServerEncoder(text.url, text.model, api_key=api_key, timeout_s=text.timeout_s)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # of reading 100 tensors; the step has one of its own
    transformers_logging.set_verbosity_error()  # it reports the language head that no embedding needs
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


def with_version(detections: Iterable[Prediction], version: str) -> Iterator[Prediction]:
    """The same detections under the workspace's name for the model, ``MODEL+BOOK``.

    Raises:
        ModelError: a figure is not finite; nothing can be ranked, judged or shown by such a model.
    """
    for found in detections:
        if not all(map(isfinite, (found.uncertainty, found.routing.entropy, *found.routing.weights))):
            raise ModelError(
                f"model {version} answers with figures that are not finite: its training diverged",
                "Lower detector.training.learning_rate in dsmoe.yaml and run the same command again.",
            )
        yield replace(found, version=version)


def predict_all(
    detector: DetectorBackend,
    model: Path,
    vocabulary: Vocabulary,
    images: Sequence[ImageRecord],
    progress: CountCallback,
) -> dict[str, Prediction]:
    """What a model finds when it is asked in these words, faint detections too, by image key.

    Args:
        model: its folder.
        progress: called with (images looked at, images in all).

    Raises:
        ModelError: the folder holds no whole model, or it answers with figures that are not finite.
    """
    found: dict[str, Prediction] = {}
    look = detector.load(model, vocabulary)
    for one in with_version(look(images), f"{model.name}+{vocabulary.version}"):
        found[one.key] = one
        progress(len(found), len(images))
    return found


def evaluate_predictions(
    detections: Iterable[Prediction],
    truth: Sequence[LabelledImage],
    vocabulary: Vocabulary,
    evaluated_on: str,
) -> Metrics:
    """COCO scores of detections against a test set; the same for every detector."""
    from dsmoe_core.evaluation.coco_metrics import evaluate

    return Metrics.of(evaluate(detections, truth, vocabulary.names), evaluated_on)
