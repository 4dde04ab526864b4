"""What the loop asks of a detector: train, look at pictures, be judged. No torch before it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.errors import ModelError
from dsmoe_core.schema import LabelledPicture, Picture, PictureFindings, Vocabulary
from pipelines.registry import Scores, plain

TrainingProgress = Callable[[int, int, Mapping[str, float]], None]


class Detection(Protocol):
    """A detector that can be trained. Models are folders; both calls may be repeated after a kill."""

    def fit(
        self,
        *,
        pictures: Sequence[LabelledPicture],
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
            progress: called with (step, steps, losses).
        """
        ...

    def findings(
        self, model: Path, vocabulary: Vocabulary, pictures: Iterable[Picture]
    ) -> Iterator[PictureFindings]:
        """What the model in this folder finds, picture by picture in the same order.

        Raises:
            ModelError: there is no model in the folder, or it does not fit.
        """
        ...


class DSMoEDetection:
    """The DS-MoE detector.

    Args:
        model: shape of the network.
        cache: folder for embedded texts.
    """

    def __init__(self, model: ModelConfig, cache: Path) -> None:
        self._model = model
        self._cache = cache

    @cached_property
    def _text_encoder(self) -> Any:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # of reading 100 tensors; the step has a progress bar of its own
        from dsmoe_core.stages.text_encoder import CachedTextEncoder, SentenceEncoder

        return CachedTextEncoder(SentenceEncoder(), self._cache)

    def fit(
        self,
        *,
        pictures: Sequence[LabelledPicture],
        vocabulary: Vocabulary,
        training: TrainingConfig,
        out: Path,
        start_from: Path | None,
        progress: TrainingProgress | None = None,
    ) -> dict[str, Any]:
        from dsmoe_core.train import fit

        for chatty in ("lightning.fabric", "lightning.pytorch"):  # they tell the precision every time
            logging.getLogger(chatty).setLevel(logging.WARNING)
        summary = fit(
            pictures=pictures,
            vocabulary=vocabulary,
            text_encoder=self._text_encoder,
            model=self._model,
            training=training,
            out=out,
            start_from=start_from,
            progress=progress,
        )
        return plain(summary)

    def findings(
        self, model: Path, vocabulary: Vocabulary, pictures: Iterable[Picture]
    ) -> Iterator[PictureFindings]:
        from dsmoe_core.predict import Detector

        detector = Detector.load(model, self._text_encoder)
        detector.use(vocabulary)
        yield from detector.findings(pictures)


def named(findings: Iterable[PictureFindings], version: str) -> Iterator[PictureFindings]:
    """The same findings under the workspace's name for the model, ``MODEL+BOOK``.

    Raises:
        ModelError: a figure is not finite; nothing can be ranked, judged or shown by such a model.
    """
    for found in findings:
        if not all(map(isfinite, (found.uncertainty, found.routing.entropy, *found.routing.weights))):
            raise ModelError(
                f"model {version} answers with figures that are not finite: its training diverged",
                "Lower detector.training.learning_rate in dsmoe.yaml and run the same command again.",
            )
        yield replace(found, version=version)


def judge(
    findings: Iterable[PictureFindings],
    truth: Sequence[LabelledPicture],
    vocabulary: Vocabulary,
    judged_on: str,
) -> Scores:
    """COCO scores of findings against a test set; the same for every detector."""
    from dsmoe_core.evaluate import evaluate

    return Scores.of(evaluate(findings, truth, vocabulary.names), judged_on)
