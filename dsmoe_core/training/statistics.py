"""What a network has counted while it was shown images: its buffers, such as running means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class BufferSnapshot:
    """A network's, as they are now."""

    def __init__(self, network: nn.Module) -> None:
        self._kept = [(buffer, buffer.clone()) for buffer in network.buffers()]

    @torch.no_grad()
    def restore(self) -> None:
        """Make them what they were."""
        for buffer, before in self._kept:
            buffer.copy_(before)


@contextmanager
def preserved_buffers(network: nn.Module) -> Iterator[None]:
    """Images that pass leave no trace."""
    before = BufferSnapshot(network)
    try:
        yield
    finally:
        before.restore()
