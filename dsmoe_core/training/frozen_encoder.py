"""Frozen image encoder: the backbone's maps of an image are computed once and cached on disk.

The backbone is a large part of the cost of a step. Its maps are cached under the hash of the input pixels, in
one store per set of backbone weights, so cached maps always belong to the same pixels and weights. Pixels
recur only if there are few variants of an image, so augmentations other than flips and rotations are switched
off (``cacheable_augmentations``). The neck of stage 3 and all later stages are trained as usual.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import UInt8
from lightning.fabric import Fabric
from torch import Tensor, nn

from dsmoe_core.data.letterbox_cache import CacheConfig
from dsmoe_core.data.lmdb_store import LmdbStore
from dsmoe_core.runtimes.protocol import to_network_input


class FrozenEncoder:
    """Computes and caches the maps of a backbone, which it freezes in evaluation mode.

    Args:
        fabric: gives device and autocast.
        network: has an ``image_encoder`` with a ``backbone`` and a method ``maps``.
        precision: precision of the computation, as in ``TrainingConfig``.
        cache: maps are cached in a sub-folder of it; None: they are computed every time.
    """

    def __init__(self, fabric: Fabric, network: Any, precision: str, cache: CacheConfig | None) -> None:
        self._fabric = fabric
        self._encoder = network.image_encoder
        self._encoder.backbone.eval().requires_grad_(False)
        self._store = None
        if cache is not None:
            weights = weights_hash(self._encoder.backbone)
            settings = json.dumps(
                {
                    "encoder": weights,
                    "precision": precision,
                    "torch": torch.__version__,
                    "device": fabric.device.type,
                }
            ).encode()
            self._store = LmdbStore(cache.folder / "features", weights[:16], settings, cache.max_bytes)

    def maps(self, pixels: UInt8[np.ndarray, "b side side 3"]) -> list[Tensor]:
        """Return the backbone's maps of these images, finest first."""
        device = self._fabric.device
        levels = list(zip(*(self._image_maps(p) for p in pixels), strict=True))
        if self._store is not None:
            self._store.flush()
        return [
            torch.cat([m.to(device) for m in level]).contiguous(memory_format=torch.channels_last)
            for level in levels
        ]

    def _image_maps(self, pixels: UInt8[np.ndarray, "side side 3"]) -> list[Tensor]:
        """Return the maps of one image: on the CPU if they were cached, else on the fabric's device."""
        key = hashlib.sha256(pixels.tobytes()).digest()
        cached = self._store.get(key) if self._store is not None else None
        if cached is not None:
            tensors = safetensors.torch.load(cached)
            return [tensors[str(i)] for i in range(len(tensors))]
        maps = self._compute(pixels)
        if self._store is not None:
            tensors = {str(i): m.cpu().contiguous() for i, m in enumerate(maps)}
            self._store.put(key, safetensors.torch.save(tensors))
        return maps

    @torch.no_grad()
    def _compute(self, pixels: UInt8[np.ndarray, "side side 3"]) -> list[Tensor]:
        """Compute the maps of one image in a batch of one, so that they do not depend on other images."""
        square = torch.from_numpy(np.ascontiguousarray(pixels[None])).to(self._fabric.device)
        image = to_network_input(square).contiguous(memory_format=torch.channels_last)
        with self._fabric.autocast():
            maps: list[Tensor] = self._encoder.maps(image)
        return maps


def weights_hash(module: nn.Module) -> str:
    """Compute the SHA-256 of all weights and buffers, ordered by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
