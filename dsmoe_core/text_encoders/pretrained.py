"""A language model of any size by transformers, such as the paper's DeepSeek-R1-Distill-Qwen."""

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

LONGEST = 512
SPREADING = ("auto", "balanced", "balanced_low_0", "sequential")
"""Values of ``device_map`` that spread one model over several devices."""


class PretrainedEncoder:
    """The frozen model's last hidden state, averaged over a text's tokens and brought to unit length.

    Read are safetensors only, and no code that comes with a model is run.

    Args:
        model: a folder with config.json, tokenizer.json and ``*.safetensors``, or the id of one on the hub.
        revision: branch, tag or commit of a model on the hub; by default its main branch as it is now.
        dtype: of weights and activations; bfloat16 takes half the memory, some CPUs are slow at it.
        device_map: a device, such as ``cuda:1``, or one of ``SPREADING``; by default the GPU if there is one.
        batch: texts at once.
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
        """Which weights and tokenizer (see ``ModelFiles.identity``), pooling, and precision.

        Raises:
            PrerequisiteError: there is no such model.
        """
        return f"{self._files.identity}/mean/unit/{self._dtype}"

    @cached_property
    def width(self) -> int:
        """Of the hidden state; read from the configuration, without the weights.

        Raises:
            PrerequisiteError: there is no such model. ModelError: transformers does not know its kind.
        """
        from transformers import AutoConfig

        folder = self._files.start
        with self._clear_errors():
            return int(AutoConfig.from_pretrained(folder, trust_remote_code=False).hidden_size)

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        """One unit vector a text, in order; of a text ``LONGEST`` tokens are read.

        Raises:
            PrerequisiteError: the model, or a package that it needs, is missing.
            ModelError: its files are torn or do not make a whole model.
            DataError: a text is empty.
        """
        return mean_pooled(*self._loaded, texts, longest=LONGEST, batch=self._batch)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        # Not AutoTokenizer: where a model names a Llama tokenizer, as DeepSeek's do, some releases of
        # transformers build that one instead of reading tokenizer.json, and spaces are lost.
        from transformers import AutoModel, PreTrainedTokenizerFast

        spread = self._device_map in SPREADING
        if spread:
            self._need_accelerate()
        folder = self._files.whole
        with self._clear_errors():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
            model, report = AutoModel.from_pretrained(
                folder,
                dtype=getattr(torch, self._dtype),
                device_map=self._device_map if spread else None,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            if not spread:
                model.to(self._device_map or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._need_whole(report)
        model.config.use_cache = False  # of keys and values, which only writing needs
        return tokenizer, model.eval()

    def _need_accelerate(self) -> None:
        try:
            importlib.import_module("accelerate")
        except ImportError:
            raise PrerequisiteError(
                f"device_map {self._device_map!r} needs the package accelerate",
                "Install it: pip install 'dsmoe[scale]', or name one device, such as cuda:0.",
            ) from None

    def _need_whole(self, report: dict[str, Any]) -> None:
        """Refuse weights that transformers has made up, which it does with a warning only."""
        missing = sorted(k for k in report["missing_keys"] if not k.startswith("pooler."))  # never read
        if missing:
            raise ModelError(
                f"text encoder {self._model} lacks weights: {', '.join(missing[:5])}",
                "Take a whole copy of the model.",
            )

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"text encoder {self._model} cannot be loaded ({said})",
                "Check its files, dtype and device_map; a model with code of its own is not run.",
            ) from error
