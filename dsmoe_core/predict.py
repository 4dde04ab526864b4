"""The detector: from images to detections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dsmoe_core.box_centres import centre_cells
from dsmoe_core.data.letterbox import Letterbox, box_corners
from dsmoe_core.data.letterbox_cache import CacheConfig, LetterboxCache, letterbox_reader
from dsmoe_core.errors import ModelError
from dsmoe_core.network import ClassEncoding
from dsmoe_core.runtimes.loading import InferenceModel, ModelTextEncoder, RuntimeOptions, load_inference_model
from dsmoe_core.runtimes.protocol import RouterOutput, RuntimeOutput, SecondSelection
from dsmoe_core.schema import Box, Detection, ImageRecord, Prediction, Routing, Vocabulary
from dsmoe_core.suppression import nms_per_class
from dsmoe_core.text_embeddings import conditioning_vocabulary, embed_vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder
from dsmoe_core.tiling import predict_tiled
from dsmoe_core.uncertainty import MIN_SCORE, binary_entropy, image_uncertainty
from dsmoe_core.uncertainty.calibration import UncertaintyCalibration
from dsmoe_core.uncertainty.description import text_rows
from dsmoe_core.uncertainty.detection_scores import DetectionScorer
from dsmoe_core.uncertainty.novelty import KnownFeatures, box_features


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
        second_selection: also run the next-best experts, for the uncertainty score ``routing``; it takes
            30 to 40 % more time, and only PyTorch can do it.

    Attributes:
        calibration: of the uncertainty scores; None if the model's folder has none.
        known: features of training boxes; a change counts from the next :meth:`set_vocabulary` on.

    Raises:
        ModelError: ``text_encoder`` is not the one of the training, or a file with the calibration or the
            known features is damaged.
    """

    def __init__(
        self,
        model: InferenceModel,
        text_encoder: TextEncoder,
        cache: CacheConfig | None = None,
        *,
        second_selection: bool = False,
    ) -> None:
        self.model = model
        self.calibration = UncertaintyCalibration.load(model.folder)
        self.known = KnownFeatures.load(model.folder)
        self._second_selection = second_selection
        self._reader = letterbox_reader(model.config, cache)
        self._encoder = ModelTextEncoder(model, text_encoder)
        self._vocabulary: Vocabulary | None = None
        self._encoding: ClassEncoding | None = None
        self._scorer: DetectionScorer | None = None

    @classmethod
    def load(
        cls,
        folder: Path,
        text_encoder: TextEncoder,
        options: RuntimeOptions | None = None,
        *,
        cache: CacheConfig | None = None,
        second_selection: bool = False,
    ) -> Detector:
        """Load a model folder or an export folder; by default, PyTorch runs a model folder in bf16.

        Raises:
            ModelError: the folder does not hold a complete model, or was trained with another text encoder.
            SettingsError: the options do not fit the folder.
            PrerequisiteError: a package is not installed.
        """
        model = load_inference_model(folder, options or RuntimeOptions())
        return cls(model, text_encoder, cache, second_selection=second_selection)

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Set the classes to detect. Runs the text encoder and stages 1 and 2 once.

        The classes may differ from those of the training. The classes of the training still condition the
        network, with the new descriptions where the vocabulary has them; the new classes are scored. The
        single texts of each class are scored, too, for the uncertainty score ``description``.
        """
        config = self.model.config
        texts = embed_vocabulary(vocabulary, self._encoder)
        rows, columns = text_rows(texts, reads_text=config.uses_text and not config.paper.class_position)
        self._encoding = _encode(self.model, rows, texts.inner, vocabulary, self._encoder)
        self._vocabulary = vocabulary
        self._scorer = DetectionScorer(
            columns,
            config.image_px,
            vocabulary.names,
            self.known.restricted(vocabulary.names) if self.known else None,
        )

    def predict(
        self, images: Iterable[ImageRecord], *, min_score: float = MIN_SCORE, batch: int = 8
    ) -> Iterator[Prediction]:
        """Detect on images, streamed in order. A model that was trained on tiles predicts on tiles.

        Detections have the uncertainty scores of ``uncertainty/score_kinds.py`` that the model allows, and
        calibrated risks if the model's folder has a calibration.

        Args:
            min_score: detections with a lower probability are dropped.
            batch: images per forward pass.

        Raises:
            ModelError: :meth:`set_vocabulary` was not called.
        """
        self._require_vocabulary()
        stream = partial(self._stream, min_score=min_score, batch=batch)
        tiles = self.model.config.tiles
        predictions = stream(images) if tiles is None else predict_tiled(stream, images, tiles)
        for prediction in predictions:
            yield prediction if self.calibration is None else self.calibration.apply(prediction)

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
        side = self.model.config.image_px
        for output, i, in_square in self._outputs_at(boxes, batch):
            yield _weights_at(output.routing, i, in_square, side)

    def features_of(
        self, boxes: Iterable[tuple[ImageRecord, Sequence[Box]]], *, batch: int = 8
    ) -> Iterator[Float[Tensor, "f d"]]:
        """Features of boxes, which the uncertainty score ``novelty`` compares.

        Images are not cut into tiles.

        Args:
            boxes: images with f boxes each, in image pixels.
            batch: images per forward pass.

        Yields:
            The features of the boxes of each image, in order.

        Raises:
            ModelError: :meth:`set_vocabulary` was not called.
        """
        side = self.model.config.image_px
        for output, i, in_square in self._outputs_at(boxes, batch):
            yield box_features(output.features[i], in_square, side).cpu()

    def _outputs_at(
        self, boxes: Iterable[tuple[ImageRecord, Sequence[Box]]], batch: int
    ) -> Iterator[tuple[RuntimeOutput, int, Float[Tensor, "f 4"]]]:
        """Outputs of images, with their boxes in pixels of the letterboxed image."""
        pairs = list(boxes)
        outputs = self.outputs([image for image, _ in pairs], batch=batch)
        for (_, of_image), (image, output, i) in zip(pairs, outputs, strict=True):
            letterbox = Letterbox.of(image.width, image.height, self.model.config.image_px)
            yield output, i, torch.from_numpy(letterbox.to_square(box_corners(of_image)))

    def _require_vocabulary(self) -> tuple[ClassEncoding, Vocabulary, DetectionScorer]:
        if self._encoding is None or self._vocabulary is None or self._scorer is None:
            raise ModelError("the detector has no class book", "Call set_vocabulary(vocabulary) first.")
        return self._encoding, self._vocabulary, self._scorer

    def _stream(
        self,
        images: Iterable[ImageRecord],
        *,
        min_score: float,
        batch: int,
    ) -> Iterator[Prediction]:
        for image, output, i in self.outputs(images, batch=batch):
            yield self.decode(image, output, i, min_score=min_score)

    def outputs(
        self, images: Iterable[ImageRecord], *, batch: int = 8, texts: bool = True
    ) -> Iterator[tuple[ImageRecord, RuntimeOutput, int]]:
        """Run the network on images as they are, without tiles.

        Args:
            batch: images per forward pass.
            texts: also score the single texts of each class.

        Yields:
            Each image with the output of its batch and its place in the batch.

        Raises:
            ModelError: :meth:`set_vocabulary` was not called.
        """
        encoding, vocabulary, _ = self._require_vocabulary()
        classes = encoding.classes if texts else encoding.classes[: len(vocabulary)]
        runtime = self.model.runtime
        run = runtime.run
        if self._second_selection and isinstance(runtime, SecondSelection):
            run = runtime.run_with_next_experts
        remaining = iter(images)
        while group := list(islice(remaining, batch)):
            pixels = torch.from_numpy(np.stack([self._reader.read(image) for image in group]))
            output = run(pixels, encoding.conditioning, classes)
            for i, image in enumerate(group):
                yield image, output, i
        if isinstance(self._reader, LetterboxCache):
            self._reader.flush()

    def decode(
        self,
        image: ImageRecord,
        output: RuntimeOutput,
        index: int,
        *,
        min_score: float = MIN_SCORE,
        scored: bool = True,
    ) -> Prediction:
        """The prediction of an image from an output of the network, with raw uncertainty scores.

        Args:
            output: of the batch of the image, for the vocabulary of this detector.
            index: of the image in the batch.
            min_score: detections with a lower probability are dropped.
            scored: compute the uncertainty scores.
        """
        _, vocabulary, scorer = self._require_vocabulary()
        probabilities_at_cells = output.logits[index, :, : len(vocabulary)].sigmoid()
        kept = nms_per_class(probabilities_at_cells, output.boxes[index], min_score)
        scores: Sequence[dict[str, float]] = [{}] * len(kept.labels)
        if scored:
            scores = scorer.score(kept, probabilities_at_cells, output, index)
        letterbox = Letterbox.of(image.width, image.height, self.model.config.image_px)
        in_image = letterbox.to_image(kept.boxes.cpu().numpy()).clip(
            0, np.array([image.width, image.height] * 2, dtype=np.float32)
        )
        probabilities = kept.probabilities.cpu().numpy().astype(np.float64)
        entropies = binary_entropy(probabilities)
        experts = leading_experts(output.routing, index, kept.boxes, self.model.config.image_px)
        detections = tuple(
            Detection(
                Box(*map(float, corners)),
                vocabulary.names[int(kept.labels[i])],
                float(probabilities[i, int(kept.labels[i])]),
                dict(zip(vocabulary.names, map(float, probabilities[i]), strict=True)),
                float(entropies[i]),
                experts[i],
                scores[i],
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
        return Prediction(image.key, detections, routing, uncertainty, version, embedding=embedding)


def encode_classes(model: InferenceModel, vocabulary: Vocabulary, encoder: TextEncoder) -> ClassEncoding:
    """Run stages 1 and 2.

    The classes of ``vocabulary`` are scored; the classes of the training condition the network, with the
    descriptions of ``vocabulary`` where it has them.
    """
    scored = embed_vocabulary(vocabulary, encoder)
    return _encode(model, scored.classes, scored.inner, vocabulary, encoder)


@torch.no_grad()
def _encode(
    model: InferenceModel,
    scored: Float[Tensor, "c t"],
    inner: Float[Tensor, "i t"],
    vocabulary: Vocabulary,
    encoder: TextEncoder,
) -> ClassEncoding:
    """Run stages 1 and 2 on the embeddings to score, conditioned by the classes of the training."""
    conditioning = embed_vocabulary(conditioning_vocabulary(model.vocabulary, vocabulary), encoder)
    device = next(model.class_encoder.parameters(), scored).device
    encoding: ClassEncoding = model.class_encoder.encode_classes(
        *(v.to(device) for v in (scored, inner, conditioning.classes))
    )
    return encoding


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
    row, column = centre_cells(boxes, leading, side)
    return leading[row, column].tolist()


def _weights_at(
    output: RouterOutput | None, index: int, boxes: Float[Tensor, "f 4"], side: int
) -> Float[np.ndarray, "f e"]:
    if output is None:
        return np.zeros((len(boxes), 0))
    row, column = centre_cells(boxes.to(output.weights.device), output.weights, side)
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
