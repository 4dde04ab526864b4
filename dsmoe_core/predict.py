"""Images to detections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import batched_nms

from dsmoe_core.data.letterbox import Letterbox
from dsmoe_core.data.letterbox_cache import CacheConfig, LetterboxCache, letterbox_reader
from dsmoe_core.errors import ModelError
from dsmoe_core.network import ClassEncoding
from dsmoe_core.runtimes.loading import InferenceModel, ModelTextEncoder, RuntimeOptions, load_inference_model
from dsmoe_core.runtimes.protocol import RouterOutput, RuntimeOutput
from dsmoe_core.schema import Box, Detection, ImageRecord, Prediction, Routing, Vocabulary
from dsmoe_core.text_embeddings import conditioning_vocabulary, embed_vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder
from dsmoe_core.tiling import predict_tiled
from dsmoe_core.uncertainty import MIN_SCORE, binary_entropy, image_uncertainty

NMS_IOU = 0.6
MAX_CANDIDATES = 1000
MAX_DETECTIONS = 100


class Detector:
    """A trained network that reads one class book at a time.

    Args:
        model: the network, where it runs, and the classes that it was trained on.
        text_encoder: the one that it was trained with.
        cache: where letter-boxed images are kept; by default nowhere.

    Raises:
        ModelError: the text encoder is another.
    """

    def __init__(
        self, model: InferenceModel, text_encoder: TextEncoder, cache: CacheConfig | None = None
    ) -> None:
        self.model = model
        self._squares = letterbox_reader(model.config, cache)
        self._encoder = ModelTextEncoder(model, text_encoder)
        self._vocabulary: Vocabulary | None = None
        self._read: ClassEncoding | None = None

    @classmethod
    def load(
        cls,
        folder: Path,
        text_encoder: TextEncoder,
        options: RuntimeOptions | None = None,
        *,
        cache: CacheConfig | None = None,
    ) -> Detector:
        """From a model folder or an exported one; by default the former is run by PyTorch in bf16.

        Raises:
            ModelError: no whole model is there, or it does not fit, or it was trained with another encoder.
            SettingsError: what is asked for cannot run this folder.
            PrerequisiteError: a package is missing.
        """
        return cls(load_inference_model(folder, options or RuntimeOptions()), text_encoder, cache)

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Read a class book: stages 1 and 2, once.

        Its classes may be others than those of the training. These go on steering the pixels, in the book's
        words where it has them; the book's classes are scored.
        """
        self._read = encode_classes(self.model, vocabulary, self._encoder)
        self._vocabulary = vocabulary

    def predict(
        self, images: Iterable[ImageRecord], *, min_score: float = MIN_SCORE, batch: int = 8
    ) -> Iterator[Prediction]:
        """Detections on each image, streamed in order; through tiles where the model was trained on tiles.

        Args:
            min_score: below this probability nothing is a detection.
            batch: images at once.

        Raises:
            ModelError: no class book was given to :meth:`set_vocabulary`.
        """
        if self._read is None or self._vocabulary is None:
            raise ModelError("the detector has read no class book", "Call use(vocabulary) first.")
        look = partial(
            self._stream, read=self._read, vocabulary=self._vocabulary, min_score=min_score, batch=batch
        )
        tiles = self.model.config.tiles
        yield from look(images) if tiles is None else predict_tiled(look, images, tiles)

    def _stream(
        self,
        images: Iterable[ImageRecord],
        *,
        read: ClassEncoding,
        vocabulary: Vocabulary,
        min_score: float,
        batch: int,
    ) -> Iterator[Prediction]:
        stream = iter(images)
        while group := list(islice(stream, batch)):
            squares = np.stack([self._squares.read(p) for p in group])
            answer = self.model.runtime.run(torch.from_numpy(squares), read.conditioning, read.classes)
            for i, image in enumerate(group):
                yield self._describe(image, answer, i, min_score, vocabulary)
        if isinstance(self._squares, LetterboxCache):
            self._squares.flush()

    def _describe(
        self, image: ImageRecord, answer: RuntimeOutput, index: int, min_score: float, vocabulary: Vocabulary
    ) -> Prediction:
        boxes, rows, labels = nms_per_class(answer.logits[index].sigmoid(), answer.boxes[index], min_score)
        letterbox = Letterbox.of(image.width, image.height, self.model.config.image_px)
        in_image = letterbox.to_image(boxes.cpu().numpy()).clip(
            0, np.array([image.width, image.height] * 2, dtype=np.float32)
        )
        table = rows.cpu().numpy().astype(np.float64)
        entropies = binary_entropy(table)
        detections = tuple(
            _detection(corners, table[i], int(labels[i]), float(entropies[i]), vocabulary.names)
            for i, corners in enumerate(in_image)
            if corners[2] > corners[0] and corners[3] > corners[1]
        )
        version = f"{self.model.version}+{vocabulary.version}"
        routing = _routing(answer.chosen, index)
        return Prediction(image.key, detections, routing, image_uncertainty(detections), version)


@torch.no_grad()
def encode_classes(model: InferenceModel, vocabulary: Vocabulary, encoder: TextEncoder) -> ClassEncoding:
    """Stages 1 and 2: these classes are scored, those of the training steer, in the words of the book."""
    asked = embed_vocabulary(vocabulary, encoder)
    conditioning = embed_vocabulary(conditioning_vocabulary(model.vocabulary, vocabulary), encoder)
    device = next(model.class_encoder.parameters(), asked.classes).device
    read: ClassEncoding = model.class_encoder.encode_classes(
        *(v.to(device) for v in (asked.classes, asked.inner, conditioning.classes))
    )
    return read


def nms_per_class(
    probabilities: Float[Tensor, "N c"], boxes: Float[Tensor, "N 4"], min_score: float
) -> tuple[Float[Tensor, "f 4"], Float[Tensor, "f c"], Int[Tensor, " f"]]:
    """Boxes, their class probabilities and the class that each is found as, highest score first.

    Every class is looked for in every cell, and its detections suppress each other alone. So no rounding
    decides which of two equally likely classes a place has, and a class more in the book takes none away.
    """
    cell, label = (probabilities >= min_score).nonzero(as_tuple=True)
    score = probabilities[cell, label]
    best = score.topk(min(MAX_CANDIDATES, len(score))).indices
    cell, label, score = cell[best], label[best], score[best]
    kept = batched_nms(boxes[cell], score, label, NMS_IOU)[:MAX_DETECTIONS]
    return boxes[cell[kept]], probabilities[cell[kept]], label[kept]


def _detection(
    corners: Float[np.ndarray, " 4"],
    row: Float[np.ndarray, " c"],
    label: int,
    entropy: float,
    names: tuple[str, ...],
) -> Detection:
    probabilities = dict(zip(names, map(float, row), strict=True))
    return Detection(Box(*map(float, corners)), names[label], float(row[label]), probabilities, entropy)


def _routing(chosen: RouterOutput | None, index: int) -> Routing:
    if chosen is None:
        return Routing((), (), 0.0)
    p = chosen.probabilities[index].double()
    entropy = float(-(p * p.clamp_min(1e-12).log()).sum())
    return Routing(tuple(chosen.experts[index].tolist()), tuple(chosen.weights[index].tolist()), entropy)
