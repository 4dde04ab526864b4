"""The language model to serve: a local folder or a name on the Hugging Face hub."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsmoe_core.errors import LanguageModelError

DEFAULT_MODEL = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
MAX_CONTEXT = 8192
"""Context length limit in tokens, prompt and reply together; a longer context would only use memory."""
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_REASONING_MODELS = re.compile(r"deepseek-r1|r1-distill", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to serve.

    Attributes:
        location: absolute path of a folder, or a name on the hub.
        name: under which it is served.
        context_length: maximum number of tokens, prompt and reply together.
        reasons: its tokenizer has tokens that mark reasoning (``</think>``).
        is_local: it is a folder; the hub is not needed.
    """

    location: str
    name: str
    context_length: int
    reasons: bool
    is_local: bool


def find_model_source(model: str, load_format: str) -> ModelSource:
    """Resolve a folder or a hub name.

    Args:
        model: folder, or ORG/NAME on the hub.
        load_format: with ``dummy`` the folder needs no weights.

    Raises:
        LanguageModelError: the folder does not exist or holds no model, or the name is malformed.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _in_folder(folder.resolve(), load_format)
    if not _HUB_NAME.fullmatch(model) or folder.exists():
        raise LanguageModelError(
            f"{model!r} is neither a folder nor a name on the hub; expected a folder or ORG/NAME",
            f"Give the folder of a model, or a name such as {DEFAULT_MODEL}.",
        )
    return ModelSource(model, model, MAX_CONTEXT, bool(_REASONING_MODELS.search(model)), is_local=False)


def _in_folder(folder: Path, load_format: str) -> ModelSource:
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        context_length = int(config.get("max_position_embeddings", MAX_CONTEXT))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LanguageModelError(
            f"{folder} holds no model: config.json is missing or malformed ({type(error).__name__})",
            "Give a folder in the format of transformers: config.json, tokenizer.json and *.safetensors.",
        ) from error
    if load_format != "dummy" and not any(folder.glob("*.safetensors")):
        raise LanguageModelError(
            f"{folder} holds no weights; expected *.safetensors",
            "Download the whole model, or test with --load-format dummy.",
        )
    tokenizer_files = [folder / name for name in ("tokenizer.json", "tokenizer_config.json")]
    reasons = any(
        "</think>" in path.read_text("utf-8", "replace") for path in tokenizer_files if path.is_file()
    )
    return ModelSource(str(folder), folder.name, min(context_length, MAX_CONTEXT), reasons, is_local=True)
