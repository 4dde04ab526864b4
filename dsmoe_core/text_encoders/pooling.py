"""Text vectors of a language model by mean pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dsmoe_core.errors import DataError


@torch.no_grad()
def mean_pooled(
    tokenizer: Any, model: Any, texts: Sequence[str], *, max_tokens: int, batch: int
) -> Float[Tensor, "t w"]:
    """Mean of the last hidden state over the tokens of a text, in float32, normalized to unit length.

    Args:
        tokenizer: of transformers.
        model: of transformers, in evaluation mode, on its device.
        max_tokens: longer texts are truncated.
        batch: texts per forward pass.

    Returns:
        One vector per text, on the CPU.

    Raises:
        DataError: a text has no token.
    """
    rows = [tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"] for text in texts]
    if not all(rows):
        raise DataError(f"text {texts[rows.index([])]!r} has no token", "Describe the class in words.")
    vectors = [torch.zeros(0, model.config.hidden_size)]
    for first in range(0, len(rows), batch):
        # Pad on the right, whatever the tokenizer's settings: right padding does not shift positions, and
        # causal attention of the text's tokens does not see it.
        ids = [torch.tensor(row) for row in rows[first : first + batch]]
        mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True).to(model.device)
        padded = pad_sequence(ids, batch_first=True).to(model.device)
        hidden = model(input_ids=padded, attention_mask=mask).last_hidden_state.float()
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        vectors.append(F.normalize(mean, dim=-1).cpu())
    return torch.cat(vectors)
