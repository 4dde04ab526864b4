"""The model that is judged: from a workspace by its id, or a folder of weights from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dsmoe_core.errors import ClassBookError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Annotation, ImageRecord, LabelledImage, Prediction, Vocabulary
from pipelines.detectors.backend import DetectorBackend, predict_all
from pipelines.services import factory
from pipelines.settings import Environment
from pipelines.workspace.model_ref import resolve_model
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.class_entry import normalized_name


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model, the words that it reads, and the detector that runs it.

    Attributes:
        aliases: class by every name that it goes by, as ``prompts.class_entry.normalized_name`` writes names.
    """

    name: str
    folder: Path
    vocabulary: Vocabulary
    aliases: dict[str, str]
    detector: DetectorBackend

    @property
    def version(self) -> str:
        """``MODEL+BOOK``."""
        return f"{self.name}+{self.vocabulary.version}"

    def rename_labels(self, truth: Iterable[LabelledImage]) -> list[LabelledImage]:
        """The same annotations under the names of its class book.

        Raises:
            ClassBookError: it lacks a class that is annotated; all such are named.
        """
        truth = list(truth)
        used = {a.label for p in truth for a in p.annotations}
        if strange := sorted(label for label in used if normalized_name(label) not in self.aliases):
            raise ClassBookError(
                f"model {self.name} does not know {', '.join(map(repr, strange))}; "
                f"it knows {', '.join(self.vocabulary.names)}",
                "Give a class book that has them, as classes or aliases, with --class-book.",
            )

        def renamed(annotation: Annotation) -> Annotation:
            return replace(annotation, label=self.aliases[normalized_name(annotation.label)])

        return [replace(p, annotations=tuple(map(renamed, p.annotations))) for p in truth]

    def look(self, images: Sequence[ImageRecord], progress: CountCallback) -> dict[str, Prediction]:
        """What it finds, faint detections too, by image key.

        Raises:
            ModelError: its folder holds no whole model, or it answers with figures that are not finite.
        """
        found = predict_all(self.detector, self.folder, self.vocabulary, images, progress)
        return {key: replace(one, version=self.version) for key, one in found.items()}


def load_evaluated_model(
    model: str, workspace: Workspace | None, book: ClassBook | None, environment: Environment
) -> EvaluatedModel:
    """A model by its id in a workspace (or ``champion``), or by its folder.

    Args:
        workspace: where ids are looked up, and whose text encoder a folder's model is run with.
        book: the words to read; by default the workspace's, or those that a folder's model was trained on.

    Raises:
        ModelError: there is no such model.
    """
    name, folder, its_workspace = resolve_model(model, workspace)
    if its_workspace is not None:
        book = book or its_workspace.class_book()
        detector = factory.detector_backend(its_workspace, environment)
        vocabulary = book.vocabulary()
    else:
        from dsmoe_core.runtimes.loading import training_vocabulary

        detector = factory.dsmoe_backend(workspace, environment)
        vocabulary = book.vocabulary() if book else training_vocabulary(folder)
    others = {
        normalized_name(alias): entry.name
        for entry in (book.classes if book else ())
        for alias in entry.aliases
    }
    aliases = others | {normalized_name(name): name for name in vocabulary.names}
    return EvaluatedModel(name, folder, vocabulary, aliases, detector)
