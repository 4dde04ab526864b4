"""Pictures to findings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import batched_nms

from dsmoe_core.assign import Flat, flatten
from dsmoe_core.checkpoint import WEIGHTS, Model, load_model, need_text_encoder
from dsmoe_core.data.letterbox import LetterBox
from dsmoe_core.data.square_cache import PictureCache, SquareCache, squares_of
from dsmoe_core.errors import ModelError
from dsmoe_core.network import Read
from dsmoe_core.schema import Box, Finding, Picture, PictureFindings, Routing, Vocabulary
from dsmoe_core.signals import Gated
from dsmoe_core.text_encoders.protocol import TextEncoder
from dsmoe_core.tiling import tiled
from dsmoe_core.uncertainty import binary_entropy, picture_uncertainty
from dsmoe_core.words import steering_of, words_of

NMS_IOU = 0.6
MOST_CANDIDATES = 1000
MOST_FINDINGS = 100


class Detector:
    """A trained network that reads one class book at a time.

    Args:
        model: the network in evaluation mode, its shape, and the classes that it was trained on.
        text_encoder: the one that it was trained with.
        version: names the weights in findings and pre-labels.
        cache: where letter-boxed pictures are kept; by default nowhere.
    """

    def __init__(
        self, model: Model, text_encoder: TextEncoder, version: str, cache: PictureCache | None = None
    ) -> None:
        self.version = version
        self.config = model.config
        self._squares = squares_of(model.config, cache)
        self._trained = model.vocabulary
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = model.network.to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._encoder = text_encoder
        self._vocabulary: Vocabulary | None = None
        self._read: Read | None = None

    @classmethod
    def load(cls, folder: Path, text_encoder: TextEncoder, cache: PictureCache | None = None) -> Detector:
        """From a model folder; the version is the hash of the weights.

        Raises:
            ModelError: no whole model is there, or it does not fit, or it was trained with another encoder.
        """
        need_text_encoder(folder, text_encoder)
        model = load_model(folder)
        version = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()[:12]
        return cls(model, text_encoder, version, cache)

    @torch.no_grad()
    def use(self, vocabulary: Vocabulary) -> None:
        """Read a class book: stages 1 and 2, once.

        Its classes may be others than those of the training. These go on steering the pixels, in the book's
        words where it has them; the book's classes are scored.
        """
        asked = words_of(vocabulary, self._encoder)
        steering = words_of(steering_of(self._trained, vocabulary), self._encoder)
        self._read = self._network.read(
            *(v.to(self._device) for v in (asked.classes, asked.inner, steering.classes))
        )
        self._vocabulary = vocabulary

    def findings(
        self, pictures: Iterable[Picture], *, min_score: float = 0.05, batch: int = 8
    ) -> Iterator[PictureFindings]:
        """Findings on each picture, streamed in order; through tiles where the model was trained on tiles.

        Args:
            min_score: below this probability nothing is a finding.
            batch: pictures at once.

        Raises:
            ModelError: no class book was given to :meth:`use`.
        """
        if self._read is None or self._vocabulary is None:
            raise ModelError("the detector has read no class book", "Call use(vocabulary) first.")
        look = partial(
            self._stream, read=self._read, vocabulary=self._vocabulary, min_score=min_score, batch=batch
        )
        tiles = self.config.tiles
        yield from look(pictures) if tiles is None else tiled(look, pictures, tiles)

    def _stream(
        self, pictures: Iterable[Picture], *, read: Read, vocabulary: Vocabulary, min_score: float, batch: int
    ) -> Iterator[PictureFindings]:
        stream = iter(pictures)
        while group := list(islice(stream, batch)):
            flat, gated = self._look(group, read)
            for i, picture in enumerate(group):
                yield self._describe(picture, _one(flat, i), _routing(gated, i), min_score, vocabulary)
        if isinstance(self._squares, SquareCache):
            self._squares.flush()

    @torch.no_grad()
    def _look(self, group: list[Picture], read: Read) -> tuple[Flat, Gated | None]:
        """One forward pass."""
        squares = np.stack([self._squares.read(p) for p in group])
        images = torch.from_numpy(squares).to(self._device).permute(0, 3, 1, 2).float().div(255)
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            output = self._network(
                images.contiguous(memory_format=torch.channels_last), read.steering, read.classes
            )
        return flatten(output.levels), output.gated

    def _describe(
        self, picture: Picture, flat: Flat, routing: Routing, min_score: float, vocabulary: Vocabulary
    ) -> PictureFindings:
        probabilities = flat.logits[0].sigmoid()
        boxes, rows = _suppress(probabilities, flat.boxes[0], min_score)
        letterbox = LetterBox.of(picture.width, picture.height, self.config.image_px)
        in_picture = letterbox.back(boxes.cpu().numpy()).clip(
            0, np.array([picture.width, picture.height] * 2, dtype=np.float32)
        )
        table = rows.cpu().numpy().astype(np.float64)
        entropies = binary_entropy(table)
        findings = tuple(
            _finding(in_picture[i], table[i], float(entropies[i]), vocabulary.names)
            for i, corners in enumerate(in_picture)
            if corners[2] > corners[0] and corners[3] > corners[1]
        )
        version = f"{self.version}+{vocabulary.version}"
        return PictureFindings(picture.key, findings, routing, picture_uncertainty(findings), version)


def _one(flat: Flat, index: int) -> Flat:
    return flat._replace(logits=flat.logits[index : index + 1], boxes=flat.boxes[index : index + 1])


def _suppress(
    probabilities: Float[Tensor, "N c"], boxes: Float[Tensor, "N 4"], min_score: float
) -> tuple[Float[Tensor, "f 4"], Float[Tensor, "f c"]]:
    """Best boxes and their class probabilities: one finding a place and class, highest score first."""
    score, label = probabilities.max(-1)
    best = score.topk(min(MOST_CANDIDATES, len(score))).indices
    best = best[score[best] >= min_score]
    kept = best[batched_nms(boxes[best], score[best], label[best], NMS_IOU)[:MOST_FINDINGS]]
    return boxes[kept], probabilities[kept]


def _finding(
    corners: Float[np.ndarray, " 4"], row: Float[np.ndarray, " c"], entropy: float, names: tuple[str, ...]
) -> Finding:
    best = int(row.argmax())
    probabilities = dict(zip(names, map(float, row), strict=True))
    return Finding(Box(*map(float, corners)), names[best], float(row[best]), probabilities, entropy)


def _routing(gated: Gated | None, index: int) -> Routing:
    if gated is None:
        return Routing((), (), 0.0)
    p = gated.probabilities[index].double()
    entropy = float(-(p * p.clamp_min(1e-12).log()).sum())
    return Routing(tuple(gated.experts[index].tolist()), tuple(gated.weights[index].tolist()), entropy)
