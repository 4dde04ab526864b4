"""Early stopping: images held out of a training, and the accuracy of its averaged weights on them.

The images that are held out are chosen by the hash of their content, of those that the start model was not
trained on. So a training that starts from an earlier model holds out the images that this one held out, and
some of the new ones. They are not trained on afterwards; the summary of the training names them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import nn

from dsmoe_core.checkpoint import read_card
from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.letterbox_cache import CacheConfig
from dsmoe_core.evaluation.coco_metrics import evaluate
from dsmoe_core.predict import Detector
from dsmoe_core.runtimes.eager import EagerRuntime
from dsmoe_core.runtimes.loading import InferenceModel
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder

MIN_SCORE = 0.001
"""Lowest score of a detection that is evaluated, as mAP averages over all recalls."""
MAX_HELD_OUT = 64
"""Most images that are held out, so that an evaluation takes seconds."""
MIN_WITH_BOXES = 4
"""Fewest images with boxes on which stopping is decided, and fewest that stay for the training."""
_log = logging.getLogger(__name__)


def known_images(start_from: Path | None, images: Sequence[LabelledImage]) -> frozenset[str]:
    """Keys of the images that a start model, or a model before it, was trained on.

    Args:
        start_from: folder of the start model; None: there is none, and no image is known.
        images: of the training. Models of earlier versions have no list of their training images: they count
            as trained on all of these but those that they held out.

    Raises:
        ModelError: the folder does not hold a complete model.
    """
    if start_from is None:
        return frozenset()
    card = read_card(start_from)
    if card.trained_on is not None:
        return frozenset(card.trained_on)
    return frozenset(image.image.key for image in images).difference(card.held_out)


def hold_out(
    images: Sequence[LabelledImage], training: TrainingConfig, known: Collection[str] = frozenset()
) -> tuple[Sequence[LabelledImage], Sequence[LabelledImage]]:
    """Split off the images on which stopping is decided.

    Args:
        known: keys of the images that the start model was trained on; they are not held out.

    Returns:
        The images to train on, and those held out: none without early stopping, or with too few images.
    """
    if training.patience is None:
        return images, ()
    limit = int(training.inner_split * 2**32)
    new = [i for i, image in enumerate(images) if image.image.key not in known]
    chosen = sorted((_place(images[i]), i) for i in new if _place(images[i]) < limit)
    numbers = {i for _, i in chosen[:MAX_HELD_OUT]}
    held_out = [image for i, image in enumerate(images) if i in numbers]
    rest = [image for i, image in enumerate(images) if i not in numbers]
    if min(sum(bool(image.annotations) for image in part) for part in (rest, held_out)) < MIN_WITH_BOXES:
        _log.warning(
            "no early stopping: of %d images, %d would be held out; expected at least %d with boxes; "
            "images that the start model was trained on (%d) are not held out",
            len(images),
            len(held_out),
            MIN_WITH_BOXES,
            len(images) - len(new),
        )
        return images, ()
    return rest, held_out


def _place(image: LabelledImage) -> int:
    """A number below 2^32 from the image's key, evenly distributed."""
    return int.from_bytes(hashlib.sha256(b"hold out " + image.image.key.encode()).digest()[:4], "big")


class HeldOutAccuracy:
    """mAP@.5:.95 of a network on the images held out.

    Args:
        network: in evaluation mode; its weights may change between two calls.
        folder: of the training, for messages.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Sequence[LabelledImage],
        vocabulary: Vocabulary,
        *,
        model: ModelConfig,
        precision: str,
        text_encoder: TextEncoder,
        folder: Path,
        cache: CacheConfig | None,
    ) -> None:
        self._network, self._images, self._vocabulary = network, images, vocabulary
        self._detector = Detector(
            InferenceModel(
                folder,
                EagerRuntime(network, "bf16" if precision == "bf16-mixed" else "fp32"),  # type: ignore[arg-type]
                network,  # type: ignore[arg-type] # a network encodes classes as well
                model,
                vocabulary,
                text_encoder.name,
                {},
                version="training",
            ),
            text_encoder,
            cache,
        )

    @torch.no_grad()
    def __call__(self) -> float:
        """Predict the images and evaluate."""
        self._network.train().eval()  # drops the attention biases that TinyViT keeps of earlier weights
        self._detector.set_vocabulary(self._vocabulary)
        predictions = self._detector.predict([i.image for i in self._images], min_score=MIN_SCORE)
        return evaluate(predictions, self._images, self._vocabulary.names).map
