"""Where a language model's files are: in a folder, or on the hub, from where they are fetched when needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from dsmoe_core.errors import DISK_FULL_ERRNOS, PrerequisiteError

CONFIG = "config.json"
FILES = (CONFIG, "tokenizer*.json", "*.safetensors", "*.safetensors.index.json")
"""What is read of a model, and what decides its vectors; no pickles, no code."""


class ModelFiles:
    """The files of one model.

    Args:
        model: a folder, or an id on the hub.
        revision: branch, tag or commit on the hub; by default its main branch as it is now.
    """

    def __init__(self, model: str, revision: str | None = None) -> None:
        self._model = model
        self._revision = revision

    @cached_property
    def start(self) -> Path:
        """A folder with config.json, and maybe nothing else yet.

        Raises:
            PrerequisiteError: there is no such model, or the hub is out of reach.
        """
        if self._is_local:
            if not (Path(self._model) / CONFIG).is_file():
                raise self._missing(f"no {CONFIG} in it")
            return Path(self._model)
        from huggingface_hub import hf_hub_download

        with self._clear_errors():
            return Path(hf_hub_download(self._model, CONFIG, revision=self._revision)).parent

    @cached_property
    def whole(self) -> Path:
        """The folder with all ``FILES``; those of the hub are fetched, all of one commit.

        Raises:
            PrerequisiteError: as for ``start``, or there are no safetensors, or no tokenizer.
        """
        folder = self.start
        if not self._is_local:
            from huggingface_hub import snapshot_download

            with self._clear_errors():
                folder = Path(
                    snapshot_download(self._model, revision=folder.name, allow_patterns=list(FILES))
                )
        for wanted in ("*.safetensors", "tokenizer.json"):
            if not any(folder.glob(wanted)):
                raise self._missing(f"no {wanted} in it")
        return folder

    @cached_property
    def identity(self) -> str:
        """The hub's id and commit, or a hash of what is in the folder, which takes a second for 2 GB.

        Raises:
            PrerequisiteError: as for ``start``, or ``whole`` where it is a folder.
        """
        if not self._is_local:
            return f"{self._model}@{self.start.name[:12]}"  # the hub's cache has a folder a commit
        digest = hashlib.sha256()
        for path in sorted({path for pattern in FILES for path in self.whole.glob(pattern)}):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        return f"folder@{digest.hexdigest()[:12]}"

    @property
    def _is_local(self) -> bool:
        return Path(self._model).is_dir()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of the hub's own types, its transport's, and the system's
            if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
                raise  # which says it best
            raise self._missing((str(error).strip() or type(error).__name__).splitlines()[0]) from error

    def _missing(self, what: str) -> PrerequisiteError:
        return PrerequisiteError(
            f"text encoder {self._model} is no whole model in a folder, nor on a hub in reach ({what})",
            f"Give a folder with {CONFIG}, tokenizer.json and *.safetensors; `hf download` makes one.",
        )
