"""The detector: from images to detections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import batched_nms

from dsmoe_core.data.letterbox import Letterbox, box_corners
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
"""Detections per image before non-maximum suppression."""
MAX_DETECTIONS = 100
"""Detections per image."""


class Detector:
    """A trained network with the classes that it is to detect.

    Example::

        detector = Detector.load(folder, text_encoder)
        detector.set_vocabulary(vocabulary)
        for prediction in detector.predict(images):
            ...

    Args:
        model: the network and its runtime.
        text_encoder: the one of the training.
        cache: cache of letter-boxed images; default: no cache.

    Raises:
        ModelError: ``text_encoder`` is not the one of the training.
    """

    def __init__(
        self, model: InferenceModel, text_encoder: TextEncoder, cache: CacheConfig | None = None
    ) -> None:
        self.model = model
        self._reader = letterbox_reader(model.config, cache)
        self._encoder = ModelTextEncoder(model, text_encoder)
        self._vocabulary: Vocabulary | None = None
        self._encoding: ClassEncoding | None = None

    @classmethod
    def load(
        cls,
        folder: Path,
        text_encoder: TextEncoder,
        options: RuntimeOptions | None = None,
        *,
        cache: CacheConfig | None = None,
    ) -> Detector:
        """Load a model folder or an export folder; by default, PyTorch runs a model folder in bf16.

        Raises:
            ModelError: the folder does not hold a complete model, or was trained with another text encoder.
            SettingsError: the options do not fit the folder.
            PrerequisiteError: a package is not installed.
        """
        return cls(load_inference_model(folder, options or RuntimeOptions()), text_encoder, cache)

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Set the classes to detect. Runs the text encoder and stages 1 and 2 once.

        The classes may differ from those of the training. The classes of the training still condition the
        network, with the new descriptions where the vocabulary has them; the new classes are scored.
        """
        self._encoding = encode_classes(self.model, vocabulary, self._encoder)
        self._vocabulary = vocabulary

    def predict(
        self, images: Iterable[ImageRecord], *, min_score: float = MIN_SCORE, batch: int = 8
    ) -> Iterator[Prediction]:
        """Detect on images, streamed in order. A model that was trained on tiles predicts on tiles.

        Args:
            min_score: detections with a lower probability are dropped.
            batch: images per forward pass.

        Raises:
            ModelError: :meth:`set_vocabulary` was not called.
        """
        encoding, vocabulary = self._require_vocabulary()
        stream = partial(
            self._stream,
            encoding=encoding,
            vocabulary=vocabulary,
            min_score=min_score,
            batch=batch,
        )
        tiles = self.model.config.tiles
        yield from stream(images) if tiles is None else predict_tiled(stream, images, tiles)

    def weights_at(
        self, boxes: Iterable[tuple[ImageRecord, Sequence[Box]]], *, batch: int = 8
    ) -> Iterator[Float[np.ndarray, "f e"]]:
        """Router weights of all e experts at the centres of boxes; 0 where an expert is not selected.

        Images are not cut into tiles.

        Args:
            boxes: images with f boxes each, in image pixels.
            batch: images per forward pass.

        Yields:
            The weights for each image, in order; without columns for a network without stage 7.

        Raises:
            ModelError: :meth:`set_vocabulary` was not called.
        """
        encoding, side = self._require_vocabulary()[0], self.model.config.image_px
        pairs = list(boxes)
        outputs = self._outputs([image for image, _ in pairs], encoding, batch)
        for (_, of_image), (image, output, i) in zip(pairs, outputs, strict=True):
            letterbox = Letterbox.of(image.width, image.height, side)
            in_square = torch.from_numpy(letterbox.to_square(box_corners(of_image)))
            yield _weights_at(output.routing, i, in_square, side)

    def _require_vocabulary(self) -> tuple[ClassEncoding, Vocabulary]:
        if self._encoding is None or self._vocabulary is None:
            raise ModelError("the detector has no class book", "Call set_vocabulary(vocabulary) first.")
        return self._encoding, self._vocabulary

    def _stream(
        self,
        images: Iterable[ImageRecord],
        *,
        encoding: ClassEncoding,
        vocabulary: Vocabulary,
        min_score: float,
        batch: int,
    ) -> Iterator[Prediction]:
        for image, output, i in self._outputs(images, encoding, batch):
            yield self._prediction(image, output, i, min_score, vocabulary)

    def _outputs(
        self, images: Iterable[ImageRecord], encoding: ClassEncoding, batch: int
    ) -> Iterator[tuple[ImageRecord, RuntimeOutput, int]]:
        """Run the network; yields each image with the output of its batch and its place in the batch."""
        remaining = iter(images)
        while group := list(islice(remaining, batch)):
            pixels = torch.from_numpy(np.stack([self._reader.read(image) for image in group]))
            output = self.model.runtime.run(pixels, encoding.conditioning, encoding.classes)
            for i, image in enumerate(group):
                yield image, output, i
        if isinstance(self._reader, LetterboxCache):
            self._reader.flush()

    def _prediction(
        self,
        image: ImageRecord,
        output: RuntimeOutput,
        index: int,
        min_score: float,
        vocabulary: Vocabulary,
    ) -> Prediction:
        boxes, rows, labels = nms_per_class(output.logits[index].sigmoid(), output.boxes[index], min_score)
        letterbox = Letterbox.of(image.width, image.height, self.model.config.image_px)
        in_image = letterbox.to_image(boxes.cpu().numpy()).clip(
            0, np.array([image.width, image.height] * 2, dtype=np.float32)
        )
        probabilities = rows.cpu().numpy().astype(np.float64)
        entropies = binary_entropy(probabilities)
        experts = leading_experts(output.routing, index, boxes, self.model.config.image_px)
        detections = tuple(
            _detection(
                corners, probabilities[i], int(labels[i]), float(entropies[i]), vocabulary.names, experts[i]
            )
            for i, corners in enumerate(in_image)
            if corners[2] > corners[0] and corners[3] > corners[1]
        )
        version = f"{self.model.version}+{vocabulary.version}"
        routing = _routing(output.routing, index)
        uncertainty = image_uncertainty(detections)
        embedding = image_embedding(
            output.features[index], letterbox.image_area(image.width, image.height), letterbox.side
        )
        return Prediction(image.key, detections, routing, uncertainty, version, embedding)


@torch.no_grad()
def encode_classes(model: InferenceModel, vocabulary: Vocabulary, encoder: TextEncoder) -> ClassEncoding:
    """Run stages 1 and 2.

    The classes of ``vocabulary`` are scored; the classes of the training condition the network, with the
    descriptions of ``vocabulary`` where it has them.
    """
    scored = embed_vocabulary(vocabulary, encoder)
    conditioning = embed_vocabulary(conditioning_vocabulary(model.vocabulary, vocabulary), encoder)
    device = next(model.class_encoder.parameters(), scored.classes).device
    encoding: ClassEncoding = model.class_encoder.encode_classes(
        *(v.to(device) for v in (scored.classes, scored.inner, conditioning.classes))
    )
    return encoding


def nms_per_class(
    probabilities: Float[Tensor, "N c"], boxes: Float[Tensor, "N 4"], min_score: float
) -> tuple[Float[Tensor, "f 4"], Float[Tensor, "f c"], Int[Tensor, " f"]]:
    """Non-maximum suppression within each class.

    A cell can give one detection per class, and detections of different classes do not suppress each other.
    Therefore rounding cannot decide between two equally likely classes, and adding a class to the vocabulary
    does not remove detections of the others.

    Args:
        probabilities: of c classes in N cells.
        boxes: of the cells.
        min_score: minimum probability of a detection.

    Returns:
        Boxes, probabilities of all classes, and class index of each of f detections, by descending score.
    """
    cell, label = (probabilities >= min_score).nonzero(as_tuple=True)
    score = probabilities[cell, label]
    top = score.topk(min(MAX_CANDIDATES, len(score))).indices
    cell, label, score = cell[top], label[top], score[top]
    kept = batched_nms(boxes[cell], score, label, NMS_IOU)[:MAX_DETECTIONS]
    return boxes[cell[kept]], probabilities[cell[kept]], label[kept]


def _detection(
    corners: Float[np.ndarray, " 4"],
    row: Float[np.ndarray, " c"],
    label: int,
    entropy: float,
    names: tuple[str, ...],
    expert: int | None,
) -> Detection:
    probabilities = dict(zip(names, map(float, row), strict=True))
    box = Box(*map(float, corners))
    return Detection(box, names[label], float(row[label]), probabilities, entropy, expert)


def image_embedding(
    features: Float[Tensor, "d h w"], area: tuple[int, int, int, int], side: int
) -> Float[np.ndarray, " d"]:
    """Mean of an image's features, scaled to length 1.

    Args:
        features: F_enc of the letterboxed image.
        area: left, top, right, bottom of the image in the square, in pixels; the padding does not count.
        side: of the letterboxed image in pixels.
    """
    cells = features.shape[-1]
    left, top = (v * cells // side for v in area[:2])
    right, bottom = (-(-v * cells // side) for v in area[2:])
    mean = features[:, top:bottom, left:right].double().mean((1, 2))
    embedding: Float[np.ndarray, " d"] = F.normalize(mean, dim=0).float().cpu().numpy()
    return embedding


def leading_experts(
    output: RouterOutput | None, index: int, boxes: Float[Tensor, "f 4"], side: int
) -> list[int] | list[None]:
    """The expert with the highest weight at the centre of each box of one image; None without stage 7.

    Args:
        output: of a batch.
        index: of the image in the batch.
        boxes: in pixels of the letter-boxed image.
        side: of the letter-boxed image in pixels.
    """
    if output is None:
        return [None] * len(boxes)
    leading = output.experts[index, 0]
    row, column = _centre_cells(boxes, leading, side)
    return leading[row, column].tolist()


def _centre_cells(boxes: Float[Tensor, "f 4"], grid: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Row and column of the cell of a grid at each box's centre; its last two axes are rows and columns."""
    size = boxes.new_tensor([grid.shape[-1], grid.shape[-2]])
    cells = ((boxes[:, :2] + boxes[:, 2:]) / 2 / side * size).long().clamp_min(0)
    column, row = torch.minimum(cells, size.long() - 1).unbind(1)
    return row, column


def _weights_at(
    output: RouterOutput | None, index: int, boxes: Float[Tensor, "f 4"], side: int
) -> Float[np.ndarray, "f e"]:
    if output is None:
        return np.zeros((len(boxes), 0))
    row, column = _centre_cells(boxes.to(output.weights.device), output.weights, side)
    experts, weights = (v[index][:, row, column] for v in (output.experts, output.weights.double()))
    total = weights.new_zeros(output.probabilities.shape[1], len(boxes)).scatter_add(0, experts, weights)
    return total.T.cpu().numpy()


def _routing(output: RouterOutput | None, index: int) -> Routing:
    """Routing of one image of a batch; empty for a network without stage 7."""
    if output is None:
        return Routing((), (), 0.0)
    p = output.probabilities[index].double()
    entropy = float(-(p * p.clamp_min(1e-12).log()).sum(0).mean())
    experts, weights = output.experts[index].flatten(), output.weights[index].flatten().double()
    total = p.new_zeros(len(p)).index_add(0, experts, weights)
    mean, order = (total / weights.sum()).sort(descending=True, stable=True)
    chosen = mean > 0
    return Routing(tuple(order[chosen].tolist()), tuple(mean[chosen].tolist()), entropy)
