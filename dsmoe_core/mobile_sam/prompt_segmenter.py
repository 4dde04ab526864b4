"""Interactive segmentation with MobileSAM: masks from points and boxes, encoding each image once."""

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
    """Candidate masks of one prompt, best first."""

    masks: Bool[np.ndarray, "m h w"]
    scores: Float[np.ndarray, " m"]
    """IoU with the true mask, as predicted by the network."""

    @property
    def boxes(self) -> list[Box | None]:
        """Bounding box of each mask; None for an empty mask."""
        return [box_of(mask) for mask in self.masks]


def box_of(mask: Bool[np.ndarray, "h w"]) -> Box | None:
    """Return the smallest box around all pixels of a mask, or None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


@dataclass(frozen=True, slots=True)
class ResizeAndPad:
    """Mapping of an image to the square input: the long side fills it, right and bottom are padded.

    Attributes:
        height, width: size of the image in pixels.
        inner_height, inner_width: size of the resized image in the square.
    """

    height: int
    width: int
    inner_height: int
    inner_width: int

    @classmethod
    def of(cls, height: int, width: int, side: int) -> ResizeAndPad:
        """Compute the mapping for an image of this size and a square of this side."""
        scale = side / max(height, width)
        return cls(height, width, max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))

    def points_to_square(self, xy: Float[np.ndarray, "p 2"]) -> Float[np.ndarray, "p 2"]:
        """Convert points of the image to points of the square."""
        return xy * np.array([self.inner_width / self.width, self.inner_height / self.height])

    def image_to_square(self, image: UInt8[np.ndarray, "h w 3"], side: int) -> Float[Tensor, "1 3 s s"]:
        """Resize, normalise and pad an image to the network's input."""
        resized = Image.fromarray(image).resize(
            (self.inner_width, self.inner_height), Image.Resampling.BILINEAR
        )
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float()
        normalised = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        return F.pad(normalised, (0, side - self.inner_width, 0, side - self.inner_height))[None]

    def masks_to_image(self, logits: Float[Tensor, "m g g"], side: int) -> Bool[Tensor, "m h w"]:
        """Convert mask logits of the square to masks of the image."""
        fine = F.interpolate(logits[None], (side, side), mode="bilinear", align_corners=False)
        inner = fine[..., : self.inner_height, : self.inner_width]
        resized = F.interpolate(inner, (self.height, self.width), mode="bilinear", align_corners=False)
        return resized[0] > 0


class PromptSegmenter:
    """Computes masks from points and boxes. The first prompt on an image is slow, further ones are fast.

    Calls from several threads are serialised.

    Args:
        network: network with loaded weights.
        cached_images: number of images whose encoding is cached, 4 MiB each.
    """

    def __init__(self, network: MobileSam, cached_images: int = 8) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.eval().to(self._device)
        self._cached_images = cached_images
        self._encodings: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def load(cls, path: Path, side: int = SIDE) -> PromptSegmenter:
        """Load the network from a file of ``dsmoe weights mobile-sam``.

        Raises:
            PrerequisiteError: the file does not exist.
            ModelError: it was not written by ``dsmoe weights``, or is damaged.
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
        """Segment the object at the given points, in the given box, or both.

        A single point is ambiguous: it gives three masks (an object, its part, and the object it is part of).
        Any other prompt gives one mask.

        Args:
            image: RGB.
            points: x and y in pixels of the image.
            labels: for each point 1 (inside the object) or 0 (outside); None: all are inside.
            box: box around the object.

        Raises:
            DataError: there is no prompt, a label is neither 0 nor 1, or a point is outside the image.
            BoxError: the box is outside the image.
        """
        mapping = ResizeAndPad.of(image.shape[0], image.shape[1], self._network.side)
        labels = [1] * len(points) if labels is None else labels
        _check_prompt(points, labels, box, mapping)
        with self._lock:
            logits, scores = self._network.decode(
                self._encode(image, mapping),
                points=self._to_square(mapping, points) if points else None,
                labels=torch.tensor(list(labels), device=self._device) if points else None,
                box=self._to_square(mapping, _corners(box)).flatten() if box else None,
                multimask=len(points) == 1 and box is None,
            )
        order = scores.argsort(descending=True)
        masks = mapping.masks_to_image(logits[order], self._network.side)
        return Masks(masks.cpu().numpy(), scores[order].cpu().numpy())

    def _encode(self, image: UInt8[np.ndarray, "h w 3"], mapping: ResizeAndPad) -> Float[Tensor, "1 d g g"]:
        """Return the image's encoding, cached by the hash of its pixels."""
        pixels = np.ascontiguousarray(image)
        digest = hashlib.blake2b(pixels.data)
        digest.update(str(pixels.shape).encode())
        key = digest.hexdigest()
        if key not in self._encodings:
            square = mapping.image_to_square(pixels, self._network.side).to(self._device)
            self._encodings[key] = self._network.embed(square)
        self._encodings.move_to_end(key)
        while len(self._encodings) > self._cached_images:
            self._encodings.popitem(last=False)
        return self._encodings[key]

    def _to_square(self, mapping: ResizeAndPad, xy: Sequence[tuple[float, float]]) -> Float[Tensor, "p 2"]:
        points = mapping.points_to_square(np.array(xy, dtype=np.float64))
        return torch.from_numpy(points).float().to(self._device)


def _corners(box: Box) -> list[tuple[float, float]]:
    return [(box.x1, box.y1), (box.x2, box.y2)]


def _check_prompt(
    points: Sequence[tuple[float, float]], labels: Sequence[int], box: Box | None, mapping: ResizeAndPad
) -> None:
    if not points and box is None:
        raise DataError("the prompt has neither a point nor a box", "Give a point or a box.")
    if len(labels) != len(points) or not {*labels} <= {0, 1}:
        raise DataError(
            f"labels {list(labels)} for {len(points)} points; expected a 0 or 1 for each point",
            "Give 1 for each point inside the object and 0 for each outside.",
        )
    size = f"{mapping.width} x {mapping.height}"
    for x, y in points:
        if not (isfinite(x) and isfinite(y) and 0 <= x <= mapping.width and 0 <= y <= mapping.height):
            raise DataError(
                f"point ({x}, {y}) is outside the image of {size} pixels", "Give points inside the image."
            )
    if box is not None and not box.inside(mapping.width, mapping.height):
        raise BoxError(
            f"box {box.corners} is outside the image of {size} pixels", "Give a box inside the image."
        )
