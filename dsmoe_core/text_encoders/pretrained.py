"""Text encoder from a language model of any size by transformers, such as DeepSeek-R1-Distill-Qwen."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.text_encoders.model_files import ModelFiles
from dsmoe_core.text_encoders.pooling import mean_pooled

MAX_TOKENS = 512
MULTI_DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Values of ``device_map`` that distribute one model over several devices."""


class PretrainedEncoder:
    """Mean of the frozen model's last hidden state over the tokens of a text, normalized to unit length.

    Only safetensors are read, and code that comes with a model is never run.

    Args:
        model: a folder with config.json, tokenizer.json and ``*.safetensors``, or the id of one on the hub.
        revision: branch, tag or commit of a model on the hub; default: the current main branch.
        dtype: of weights and activations; bfloat16 needs half the memory but is slow on some CPUs.
        device_map: a device, such as ``cuda:1``, or one of ``MULTI_DEVICE_MAPS``; default: a GPU if there is
            one.
        batch: texts per forward pass.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        dtype: Literal["bfloat16", "float32"] = "bfloat16",
        device_map: str | None = None,
        batch: int = 16,
    ) -> None:
        self._model = str(model)
        self._files = ModelFiles(self._model, revision)
        self._dtype = dtype
        self._device_map = device_map
        self._batch = batch

    @property
    def name(self) -> str:
        """Weights and tokenizer (see ``ModelFiles.identity``), pooling, and precision.

        Raises:
            PrerequisiteError: there is no such model.
        """
        return f"{self._files.identity}/mean/unit/{self._dtype}"

    @cached_property
    def width(self) -> int:
        """Width of the hidden state; read from the configuration, without the weights.

        Raises:
            PrerequisiteError: there is no such model.
            ModelError: transformers does not support its architecture.
        """
        from transformers import AutoConfig

        folder = self._files.config_folder
        with self._translated_errors():
            return int(AutoConfig.from_pretrained(folder, trust_remote_code=False).hidden_size)

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        """One unit vector per text, in order; texts are truncated to ``MAX_TOKENS`` tokens.

        Raises:
            PrerequisiteError: the model, or a package that it needs, is missing.
            ModelError: its files are damaged or incomplete.
            DataError: a text is empty.
        """
        return mean_pooled(*self._loaded, texts, max_tokens=MAX_TOKENS, batch=self._batch)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        # AutoTokenizer is not usable: if a model names a Llama tokenizer, as DeepSeek's models do, some
        # releases of transformers build that one instead of reading tokenizer.json, and spaces are lost.
        from transformers import AutoModel, PreTrainedTokenizerFast

        multi_device = self._device_map in MULTI_DEVICE_MAPS
        if multi_device:
            self._check_accelerate()
        folder = self._files.folder
        with self._translated_errors():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
            model, report = AutoModel.from_pretrained(
                folder,
                dtype=getattr(torch, self._dtype),
                device_map=self._device_map if multi_device else None,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            if not multi_device:
                model.to(self._device_map or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._check_complete(report)
        model.config.use_cache = False  # the cache of keys and values is for generation only
        return tokenizer, model.eval()

    def _check_accelerate(self) -> None:
        try:
            importlib.import_module("accelerate")
        except ImportError:
            raise PrerequisiteError(
                f"device_map {self._device_map!r} needs the package accelerate",
                "Install it: pip install 'dsmoe[scale]', or name one device, such as cuda:0.",
            ) from None

    def _check_complete(self, report: dict[str, Any]) -> None:
        """Check that no weights are missing: transformers initialises those randomly, with a warning only."""
        missing = sorted(k for k in report["missing_keys"] if not k.startswith("pooler."))  # unused
        if missing:
            raise ModelError(
                f"text encoder {self._model} lacks weights: {', '.join(missing[:5])}",
                "Use a complete copy of the model.",
            )

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"text encoder {self._model} cannot be loaded ({reason})",
                "Check its files, dtype and device_map; models with custom code are not supported.",
            ) from error
