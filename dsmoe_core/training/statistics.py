"""What a network has counted while it was shown images: its buffers, such as running means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Statistics:
    """A network's, as they are now."""

    def __init__(self, network: nn.Module) -> None:
        self._kept = [(buffer, buffer.clone()) for buffer in network.buffers()]

    @torch.no_grad()
    def put_back(self) -> None:
        """Make them what they were."""
        for buffer, before in self._kept:
            buffer.copy_(before)


@contextmanager
def statistics_untouched(network: nn.Module) -> Iterator[None]:
    """Images that pass leave no trace."""
    before = Statistics(network)
    try:
        yield
    finally:
        before.put_back()
