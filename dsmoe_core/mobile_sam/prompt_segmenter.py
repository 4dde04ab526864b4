"""From a click or a box to a mask: MobileSAM, encoding each image once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from dsmoe_core.checkpoint import load_weights
from dsmoe_core.errors import BoxError, DataError
from dsmoe_core.mobile_sam.network import MEAN, SIDE, STD, MobileSam
from dsmoe_core.mobile_sam.weights import read_weights
from dsmoe_core.schema import Box


class Masks(NamedTuple):
    """What may be meant, best first."""

    masks: Bool[np.ndarray, "m h w"]
    scores: Float[np.ndarray, " m"]
    """The IoU with the truth that the network expects of each."""

    @property
    def boxes(self) -> list[Box | None]:
        """The box around each mask; None around an empty one."""
        return [box_of(mask) for mask in self.masks]


def box_of(mask: Bool[np.ndarray, "h w"]) -> Box | None:
    """The smallest box around all pixels of a mask; None where it has none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


@dataclass(frozen=True, slots=True)
class ResizeAndPad:
    """How an image lies in the square: its long side fills it, the rest is padding at the right and bottom.

    Attributes:
        height, width: of the image.
        inner_height, inner_width: of the image in the square.
    """

    height: int
    width: int
    inner_height: int
    inner_width: int

    @classmethod
    def of(cls, height: int, width: int, side: int) -> ResizeAndPad:
        """For an image of this size."""
        scale = side / max(height, width)
        return cls(height, width, max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))

    def into(self, xy: Float[np.ndarray, "p 2"]) -> Float[np.ndarray, "p 2"]:
        """Places in the image to places in the square."""
        return xy * np.array([self.inner_width / self.width, self.inner_height / self.height])

    def square(self, image: UInt8[np.ndarray, "h w 3"], side: int) -> Float[Tensor, "1 3 s s"]:
        """The image as the network wants it."""
        small = Image.fromarray(image).resize(
            (self.inner_width, self.inner_height), Image.Resampling.BILINEAR
        )
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).float()
        normalised = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        return F.pad(normalised, (0, side - self.inner_width, 0, side - self.inner_height))[None]

    def back(self, logits: Float[Tensor, "m g g"], side: int) -> Bool[Tensor, "m h w"]:
        """Mask logits of the square to masks of the image."""
        fine = F.interpolate(logits[None], (side, side), mode="bilinear", align_corners=False)
        inner = fine[..., : self.inner_height, : self.inner_width]
        whole = F.interpolate(inner, (self.height, self.width), mode="bilinear", align_corners=False)
        return whole[0] > 0


class PromptSegmenter:
    """Masks from points and boxes. The first prompt on an image takes long, each further one does not.

    May be asked from several threads; they take turns.

    Args:
        network: with its weights.
        remembered: images whose encoding is kept, 4 MiB each.
    """

    def __init__(self, network: MobileSam, remembered: int = 8) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.eval().to(self._device)
        self._remembered = remembered
        self._encoded: OrderedDict[str, Tensor] = OrderedDict()
        self._turn = Lock()

    @classmethod
    def load(cls, path: Path, side: int = SIDE) -> PromptSegmenter:
        """From a file that ``dsmoe weights mobile-sam`` wrote.

        Raises:
            PrerequisiteError: no such file is there.
            ModelError: it is not one of ours, or torn.
        """
        network = MobileSam(side)
        load_weights(network, read_weights(path), str(path))
        return cls(network)

    @torch.no_grad()
    def segment(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        *,
        points: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] | None = None,
        box: Box | None = None,
    ) -> Masks:
        """The object that is pointed at, or boxed, or both.

        One lone point may mean a thing, its part, or what it is part of: three masks then, otherwise one.

        Args:
            image: RGB.
            points: x and y in the image's pixels.
            labels: for each point 1 (in the object) or 0 (outside it); by default all are in it.
            box: around the object, in the image's pixels.

        Raises:
            DataError: there is no prompt, or a point is outside the image or has no such label.
            BoxError: the box is outside the image.
        """
        frame = ResizeAndPad.of(image.shape[0], image.shape[1], self._network.side)
        labels = [1] * len(points) if labels is None else labels
        _check(points, labels, box, frame)
        with self._turn:
            logits, scores = self._network.decode(
                self._encode(image, frame),
                points=self._square(frame, points) if points else None,
                labels=torch.tensor(list(labels), device=self._device) if points else None,
                box=self._square(frame, _edges(box)).flatten() if box else None,
                multimask=len(points) == 1 and box is None,
            )
        best = scores.argsort(descending=True)
        masks = frame.back(logits[best], self._network.side)
        return Masks(masks.cpu().numpy(), scores[best].cpu().numpy())

    def _encode(self, image: UInt8[np.ndarray, "h w 3"], frame: ResizeAndPad) -> Float[Tensor, "1 d g g"]:
        """The image's encoding, remembered by its pixels."""
        pixels = np.ascontiguousarray(image)
        digest = hashlib.blake2b(pixels.data)
        digest.update(str(pixels.shape).encode())
        key = digest.hexdigest()
        if key not in self._encoded:
            square = frame.square(pixels, self._network.side).to(self._device)
            self._encoded[key] = self._network.embed(square)
        self._encoded.move_to_end(key)
        while len(self._encoded) > self._remembered:
            self._encoded.popitem(last=False)
        return self._encoded[key]

    def _square(self, frame: ResizeAndPad, xy: Sequence[tuple[float, float]]) -> Float[Tensor, "p 2"]:
        inside = frame.into(np.array(xy, dtype=np.float64))
        return torch.from_numpy(inside).float().to(self._device)


def _edges(box: Box) -> list[tuple[float, float]]:
    return [(box.x1, box.y1), (box.x2, box.y2)]


def _check(
    points: Sequence[tuple[float, float]], labels: Sequence[int], box: Box | None, frame: ResizeAndPad
) -> None:
    if not points and box is None:
        raise DataError("nothing is pointed at", "Give a point or a box.")
    if len(labels) != len(points) or not {*labels} <= {0, 1}:
        raise DataError(
            f"labels {list(labels)} do not say of each of {len(points)} points whether it is in the object",
            "Give 1 for each point in it and 0 for each outside.",
        )
    for x, y in points:
        if not (isfinite(x) and isfinite(y) and 0 <= x <= frame.width and 0 <= y <= frame.height):
            raise DataError(
                f"point ({x}, {y}) is outside the image of {frame.width} x {frame.height} pixels",
                "Point at something in it.",
            )
    if box is not None and not box.inside(frame.width, frame.height):
        raise BoxError(
            f"box {box.corners} is outside the image of {frame.width} x {frame.height} pixels",
            "Draw it in the image.",
        )
