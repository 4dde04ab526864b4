"""A vector from a language model: the mean of its last hidden state over the text's own tokens."""

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
    tokenizer: Any, model: Any, texts: Sequence[str], *, longest: int, batch: int
) -> Float[Tensor, "t w"]:
    """Masked mean over the last hidden state, in float32, then unit length.

    Args:
        tokenizer: of transformers.
        model: of transformers, in evaluation mode, where it shall run.
        longest: tokens of a text beyond this are cut off.
        batch: texts at once.

    Raises:
        DataError: a text has no token.
    """
    rows = [tokenizer(text, truncation=True, max_length=longest)["input_ids"] for text in texts]
    if not all(rows):
        raise DataError(f"text {texts[rows.index([])]!r} has no token", "Describe the class in words.")
    vectors = [torch.zeros(0, model.config.hidden_size)]
    for first in range(0, len(rows), batch):
        # Padded here, always on the right: there it moves no position and no causal token sees it, whatever
        # side or token the tokenizer was saved with.
        ids = [torch.tensor(row) for row in rows[first : first + batch]]
        mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True).to(model.device)
        padded = pad_sequence(ids, batch_first=True).to(model.device)
        hidden = model(input_ids=padded, attention_mask=mask).last_hidden_state.float()
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        vectors.append(F.normalize(mean, dim=-1).cpu())
    return torch.cat(vectors)
