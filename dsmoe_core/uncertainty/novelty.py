"""Score ``novelty``: distance of a detection's features from those of the training boxes.

After Sun et al., "Out-of-distribution detection with deep nearest neighbors", 2022: the distance to the k-th
nearest neighbour, here the mean over the k nearest, of features of length 1. The features are the mean of
F_enc (stage 3) in the box. Later stages are trained to place every object at one of the classes, so a class
that the network never saw is not far from all of them there. Those of a sample of the training boxes are
stored with the model; a class that the class book does not have is not known, so its boxes do not count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import roi_align

from dsmoe_core.checkpoint import read_tensors, write_tensors
from dsmoe_core.errors import ModelError

FILE = "known_features.safetensors"
NEIGHBOURS = 5
"""k."""
MAX_BOXES_PER_CLASS = 200
"""Boxes of a class that are stored."""
_OF = "mean F_enc of a box"
"""Marks the file. Earlier versions stored vectors of the head."""


class Novelty(NamedTuple):
    """Scores of f detections, 0 (seen in training) to 2.

    Attributes:
        nearest: distance from the nearest known class.
        other: distance from the nearest class but the detection's: the novelty if its class were not known.
            NaN if no other class is known.
    """

    nearest: Float[Tensor, " f"]
    other: Float[Tensor, " f"]


class KnownFeatures(NamedTuple):
    """Features of training boxes.

    Attributes:
        features: of n boxes, of length 1.
        labels: index of the class of each box.
        classes: names of the classes.
    """

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]

    def restricted(self, names: Iterable[str]) -> KnownFeatures:
        """Without the boxes of classes that are not among these names."""
        known = torch.tensor([name in set(names) for name in self.classes], dtype=torch.bool)
        rows = known[self.labels]
        return self._replace(features=self.features[rows], labels=self.labels[rows])

    def novelty(self, features: Float[Tensor, "f d"], names: Sequence[str]) -> Novelty:
        """Distance of features from each class: the mean cosine distance of the ``NEIGHBOURS`` nearest boxes.

        Infinite without any known box.

        Args:
            names: class of each detection.
        """
        if not len(self.labels):
            return Novelty(*(features.new_full((len(features),), v) for v in (torch.inf, torch.nan)))
        known = sorted(set(self.labels.tolist()))
        stored = self.features.to(features.device)
        distance = 1 - F.normalize(features.float(), dim=1) @ stored.T
        columns = []
        for label in known:
            of_class = distance[:, self.labels == label]
            k = min(NEIGHBOURS, of_class.shape[1])
            columns.append(of_class.topk(k, dim=1, largest=False).values.mean(1))
        per_class = torch.stack(columns, dim=1)
        own = [[self.classes[label] == name for label in known] for name in names]
        of_own = torch.tensor(own, device=features.device, dtype=torch.bool).reshape(per_class.shape)
        other = per_class.masked_fill(of_own, torch.inf).min(dim=1).values
        return Novelty(per_class.min(dim=1).values, other.masked_fill(other.isinf(), torch.nan))

    def save(self, folder: Path) -> None:
        """Write ``known_features.safetensors`` into a model folder, in half precision."""
        tensors = {"features": self.features.half(), "labels": self.labels}
        write_tensors(folder / FILE, tensors, {"classes": json.dumps(self.classes), "of": _OF})

    @classmethod
    def load(cls, folder: Path) -> KnownFeatures | None:
        """The features that are stored with a model; None if there are none that this version can compare.

        Raises:
            ModelError: the file is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        tensors, metadata = read_tensors(path)
        if metadata.get("of") != _OF:
            return None
        try:
            classes = tuple(json.loads(metadata["classes"]))
            return cls(tensors["features"].float(), tensors["labels"], classes)
        except (KeyError, ValueError) as error:
            raise ModelError(
                f"{path} is damaged ({error})", "Delete it; detections then have no novelty."
            ) from error


def known_features(
    features: Sequence[Float[Tensor, " d"]], labels: Sequence[int], classes: tuple[str, ...], seed: int = 0
) -> KnownFeatures:
    """A sample of the features of training boxes, ``MAX_BOXES_PER_CLASS`` of each class.

    Args:
        features: of the boxes; scaled to length 1 here.
        labels: index of the class of each box.
    """
    order = np.random.default_rng(seed).permutation(len(features))
    kept: list[int] = []
    count = dict.fromkeys(range(len(classes)), 0)
    for i in order.tolist():
        if count[labels[i]] < MAX_BOXES_PER_CLASS:
            count[labels[i]] += 1
            kept.append(i)
    kept.sort()
    rows = torch.stack([features[i].float().cpu() for i in kept]) if kept else torch.zeros(0, 1)
    return KnownFeatures(
        F.normalize(rows, dim=1), torch.tensor([labels[i] for i in kept], dtype=torch.long), classes
    )


def box_features(
    f_enc: Float[Tensor, "d h w"], boxes: Float[Tensor, "f 4"], side: int
) -> Float[Tensor, "f d"]:
    """Mean of F_enc in each box, by RoIAlign (He et al., "Mask R-CNN", 2017) with one bin.

    It has a sample for each cell of F_enc that the box covers, at least one.

    Args:
        f_enc: output of stage 3 for an image.
        boxes: x1, y1, x2, y2 in pixels of the letterboxed image.
        side: of the letterboxed image in pixels.
    """
    maps = f_enc[None].float()
    rois = [boxes.to(maps)]
    scale = f_enc.shape[-1] / side
    pooled: Tensor = roi_align(maps, rois, 1, spatial_scale=scale, sampling_ratio=0, aligned=True)
    return pooled[:, :, 0, 0]
