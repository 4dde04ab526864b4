"""Files of a language model in a folder or on the Hugging Face hub, downloaded when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from dsmoe_core.errors import DISK_FULL_ERRNOS, PrerequisiteError

CONFIG = "config.json"
FILES = (CONFIG, "tokenizer*.json", "*.safetensors", "*.safetensors.index.json")
"""The files that are read; they determine the vectors. Pickles and code are never read."""


class ModelFiles:
    """The files of one model.

    Args:
        model: a folder, or an id on the hub.
        revision: branch, tag or commit on the hub; default: the current main branch.
    """

    def __init__(self, model: str, revision: str | None = None) -> None:
        self._model = model
        self._revision = revision

    @cached_property
    def config_folder(self) -> Path:
        """A folder that has config.json, but not necessarily the other files.

        Raises:
            PrerequisiteError: there is no such model, or the hub cannot be reached.
        """
        if self._is_local:
            if not (Path(self._model) / CONFIG).is_file():
                raise self._missing(f"no {CONFIG} in it")
            return Path(self._model)
        from huggingface_hub import hf_hub_download

        with self._translated_errors():
            return Path(hf_hub_download(self._model, CONFIG, revision=self._revision)).parent

    @cached_property
    def folder(self) -> Path:
        """A folder that has all ``FILES``; those of the hub are downloaded, all from one commit.

        Raises:
            PrerequisiteError: as for ``config_folder``, or there are no safetensors or no tokenizer.
        """
        folder = self.config_folder
        if not self._is_local:
            from huggingface_hub import snapshot_download

            with self._translated_errors():
                folder = Path(
                    snapshot_download(self._model, revision=folder.name, allow_patterns=list(FILES))
                )
        for pattern in ("*.safetensors", "tokenizer.json"):
            if not any(folder.glob(pattern)):
                raise self._missing(f"no {pattern} in it")
        return folder

    @cached_property
    def identity(self) -> str:
        """Hub id and commit, or a hash of the files of a folder (about one second for 2 GB).

        Raises:
            PrerequisiteError: as for ``config_folder``, or for ``folder`` if the model is a folder.
        """
        if not self._is_local:
            return (
                f"{self._model}@{self.config_folder.name[:12]}"  # the hub's cache has one folder per commit
            )
        digest = hashlib.sha256()
        for path in sorted({path for pattern in FILES for path in self.folder.glob(pattern)}):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        return f"folder@{digest.hexdigest()[:12]}"

    @property
    def _is_local(self) -> bool:
        return Path(self._model).is_dir()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of the hub client, its transport, or the system
            if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
                raise
            raise self._missing((str(error).strip() or type(error).__name__).splitlines()[0]) from error

    def _missing(self, reason: str) -> PrerequisiteError:
        return PrerequisiteError(
            f"the folder of text encoder {self._model} is incomplete: {reason}"
            if self._is_local
            else f"text encoder {self._model} is neither a folder nor on a reachable hub ({reason})",
            f"Give a folder with {CONFIG}, tokenizer.json and *.safetensors; `hf download` creates one.",
        )
