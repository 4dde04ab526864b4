"""Which model is to be served: a folder, or a name on the hub, with what the engine must know of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsmoe_core.errors import LanguageModelError

DEFAULT = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
POSITIONS = 8192
"""Most tokens of a question with its answer; what a model could do beyond would only cost memory."""
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_THINKERS = re.compile(r"deepseek-r1|r1-distill", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to serve.

    Attributes:
        where: absolute path of a folder, or a name on the hub.
        name: under which it is served.
        positions: most tokens of a question with its answer.
        thinks: its tokenizer knows the tokens around thoughts.
        local: no hub is needed.
    """

    where: str
    name: str
    positions: int
    thinks: bool
    local: bool


def find_model_source(wanted: str, load_format: str) -> ModelSource:
    """What is meant by a folder or a name.

    Args:
        load_format: with ``dummy`` the folder needs no weights.

    Raises:
        LanguageModelError: there is no such folder, it holds no model, or this is no name.
    """
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        return _in_folder(folder.resolve(), load_format)
    if not _HUB_NAME.fullmatch(wanted) or folder.exists():
        raise LanguageModelError(
            f"there is no folder {wanted!r}, and it is no name on the hub, which is ORG/NAME",
            f"Give the folder of a model, or a name such as {DEFAULT}.",
        )
    return ModelSource(wanted, wanted, POSITIONS, bool(_THINKERS.search(wanted)), local=False)


def _in_folder(folder: Path, load_format: str) -> ModelSource:
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        positions = int(config.get("max_position_embeddings", POSITIONS))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LanguageModelError(
            f"{folder} holds no model: config.json is missing or wrong ({type(error).__name__})",
            "Give a folder as transformers writes it: config.json, tokenizer.json and *.safetensors.",
        ) from error
    if load_format != "dummy" and not any(folder.glob("*.safetensors")):
        raise LanguageModelError(
            f"{folder} holds no weights; expected *.safetensors",
            "Download all of the model, or try it out with --load-format dummy.",
        )
    progress = [folder / name for name in ("tokenizer.json", "tokenizer_config.json")]
    thinks = any("</think>" in path.read_text("utf-8", "replace") for path in progress if path.is_file())
    return ModelSource(str(folder), folder.name, min(positions, POSITIONS), thinks, local=True)
