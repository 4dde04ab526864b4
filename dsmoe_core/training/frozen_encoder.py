"""An image encoder that learns no more: what its backbone makes of an image is computed once and kept.

A backbone is most of what a step costs. Its maps are kept under the hash of the very pixels that it was
shown, in a store of its own for its weights; so they can only ever be found for the same pixels and the same
weights. For pixels to come again they must be few, which is why the other augmentations are off
(:func:`fixed_views`). The neck of stage 3 and everything after it learn as ever.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import UInt8
from lightning.fabric import Fabric
from torch import Tensor, nn

from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.batches import AUGMENTATIONS
from dsmoe_core.data.letterbox_cache import CacheConfig
from dsmoe_core.data.lmdb_store import LmdbStore
from dsmoe_core.runtimes.protocol import to_network_input

VIEWS = ("flips", "turns")
"""Augmentations that leave an image at most eight views."""
_log = logging.getLogger(__name__)


def fixed_views(training: TrainingConfig) -> TrainingConfig:
    """The same training without what makes ever new pixels; says what was on."""
    off = [name for name in AUGMENTATIONS if name not in VIEWS and getattr(training, name) > 0]
    if off:
        _log.info("the image encoder is frozen: %s are off, flips and quarter turns stay", ", ".join(off))
    return training.model_copy(update=dict.fromkeys(off, 0.0))


class FrozenEncoder:
    """Gives the maps of a backbone that it keeps from learning, in evaluation mode.

    Args:
        network: with an ``image_encoder`` that has a ``backbone`` and ``maps``.
        precision: in which it computes.
        cache: where maps are kept, in a sub-folder; none: they are computed every time.
    """

    def __init__(self, fabric: Fabric, network: Any, precision: str, cache: CacheConfig | None) -> None:
        self._fabric = fabric
        self._encoder = network.image_encoder
        self._encoder.backbone.eval().requires_grad_(False)
        self._store = None
        if cache is not None:
            weights = weights_hash(self._encoder.backbone)
            how = {"precision": precision, "torch": torch.__version__, "device": fabric.device.type}
            settings = json.dumps({"encoder": weights, **how}).encode()
            self._store = LmdbStore(cache.folder / "features", weights[:16], settings, cache.max_bytes)

    def maps(self, pixels: UInt8[np.ndarray, "b side side 3"]) -> list[Tensor]:
        """The backbone's maps of these images, finest first."""
        device = self._fabric.device
        levels = list(zip(*(self._maps_of(p) for p in pixels), strict=True))
        if self._store is not None:
            self._store.flush()
        return [
            torch.cat([one.to(device) for one in level]).contiguous(memory_format=torch.channels_last)
            for level in levels
        ]

    def _maps_of(self, pixels: UInt8[np.ndarray, "side side 3"]) -> list[Tensor]:
        """Kept ones come from the disk to the processor, computed ones are where they were computed."""
        key = hashlib.sha256(pixels.tobytes()).digest()
        kept = self._store.get(key) if self._store is not None else None
        if kept is not None:
            found = safetensors.torch.load(kept)
            return [found[str(i)] for i in range(len(found))]
        maps = self._compute(pixels)
        if self._store is not None:
            tensors = {str(i): m.cpu().contiguous() for i, m in enumerate(maps)}
            self._store.put(key, safetensors.torch.save(tensors))
        return maps

    @torch.no_grad()
    def _compute(self, pixels: UInt8[np.ndarray, "side side 3"]) -> list[Tensor]:
        """Of one image alone: what is kept must not hang on which others were beside it."""
        square = torch.from_numpy(np.ascontiguousarray(pixels[None])).to(self._fabric.device)
        image = to_network_input(square).contiguous(memory_format=torch.channels_last)
        with self._fabric.autocast():
            maps: list[Tensor] = self._encoder.maps(image)
        return maps


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all weights and statistics, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
