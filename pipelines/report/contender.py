"""The model that is judged: from a workspace by its id, or a folder of weights from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from dsmoe_core.config import ModelConfig
from dsmoe_core.errors import ClassBookError, ModelError
from dsmoe_core.schema import Annotation, LabelledPicture, Picture, PictureFindings, Vocabulary
from pipelines import services
from pipelines.detection import Detection, DSMoEDetection, named
from pipelines.registry import CHAMPION
from pipelines.settings import Environment
from pipelines.workspace import Workspace
from prompts.class_book import ClassBook, plain


@dataclass(frozen=True, slots=True)
class Contender:
    """A model, the words that it reads, and the detector that runs it.

    Attributes:
        aliases: class by every name that it goes by, as ``prompts.class_book.plain`` writes names.
    """

    name: str
    folder: Path
    vocabulary: Vocabulary
    aliases: dict[str, str]
    detection: Detection

    @property
    def version(self) -> str:
        """``MODEL+BOOK``."""
        return f"{self.name}+{self.vocabulary.version}"

    def in_its_words(self, truth: Iterable[LabelledPicture]) -> list[LabelledPicture]:
        """The same annotations under the names of its class book.

        Raises:
            ClassBookError: it lacks a class that is annotated; all such are named.
        """
        truth = list(truth)
        used = {a.label for p in truth for a in p.annotations}
        if strange := sorted(label for label in used if plain(label) not in self.aliases):
            raise ClassBookError(
                f"model {self.name} does not know {', '.join(map(repr, strange))}; "
                f"it knows {', '.join(self.vocabulary.names)}",
                "Give a class book that has them, as classes or aliases, with --class-book.",
            )

        def renamed(annotation: Annotation) -> Annotation:
            return replace(annotation, label=self.aliases[plain(annotation.label)])

        return [replace(p, annotations=tuple(map(renamed, p.annotations))) for p in truth]

    def look(
        self, pictures: Sequence[Picture], progress: Callable[[int, int], None]
    ) -> dict[str, PictureFindings]:
        """What it finds, by picture key.

        Raises:
            ModelError: its folder holds no whole model, or it answers with figures that are not finite.
        """
        found = {}
        for one in named(self.detection.findings(self.folder, self.vocabulary, pictures), self.version):
            found[one.key] = one
            progress(len(found), len(pictures))
        return found


def contender(
    model: str, workspace: Workspace | None, book: ClassBook | None, environment: Environment
) -> Contender:
    """A model by its id in a workspace (or ``champion``), or by its folder.

    Args:
        workspace: where ids are looked up, and whose text encoder a folder's model is run with.
        book: the words to read; by default the workspace's, or those that a folder's model was trained on.

    Raises:
        ModelError: there is no such model.
    """
    if workspace is not None:
        key = workspace.champion() if model == CHAMPION else model
        if key is not None and Path(key).name == key and workspace.registry.has(key):
            book = book or workspace.class_book()
            detection = services.detection(workspace, environment)
            return _contender(key, workspace.registry.folder(key), book.vocabulary(), book, detection)
    folder = Path(model).expanduser()
    if folder.is_dir():
        detection = _network(workspace, environment)
        vocabulary = book.vocabulary() if book else _trained_on(folder)
        return _contender(model, folder, vocabulary, book, detection)
    known = ", ".join(card.id for card in workspace.registry.cards()) if workspace else ""
    place = f"in {workspace.path}, which has {known or 'none'}" if workspace else "a folder"
    raise ModelError(
        f"model {model!r} is not {place}",
        "Give a folder with model.json and model.safetensors, or --workspace and the id of a model in it.",
    )


def _contender(
    name: str, folder: Path, vocabulary: Vocabulary, book: ClassBook | None, detection: Detection
) -> Contender:
    others = {plain(alias): entry.name for entry in (book.classes if book else ()) for alias in entry.aliases}
    return Contender(
        name, folder, vocabulary, others | {plain(name): name for name in vocabulary.names}, detection
    )


def _network(workspace: Workspace | None, environment: Environment) -> Detection:
    """Runs any folder's network; with the text encoder of the workspace, where one is in use."""
    if workspace is not None and workspace.settings.detector.kind == "ds-moe":
        return services.detection(workspace, environment)
    return DSMoEDetection(ModelConfig(), platformdirs.user_cache_path("dsmoe") / "texts")


def _trained_on(folder: Path) -> Vocabulary:
    from dsmoe_core.checkpoint import load_model

    return load_model(folder).vocabulary
