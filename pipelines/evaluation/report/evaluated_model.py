"""The model to evaluate: from a workspace by its id, or from a model folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dsmoe_core.errors import ClassBookError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import ImageRecord, LabelledImage, Prediction, Vocabulary
from pipelines.detectors.backend import DetectorBackend, predict_all
from pipelines.detectors.ds_moe import dsmoe_backend
from pipelines.detectors.registry import detector_backend
from pipelines.settings.environment import Environment
from pipelines.workspace.model_ref import resolve_model
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.class_entry import normalized_name


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model with its vocabulary and the detector backend that runs it.

    Attributes:
        name: id in the workspace, or the path of the folder.
        folder: the model folder.
        aliases: class names by all their names and aliases, normalized by ``normalized_name``.
        intensity_max: value that was white in its images of more than 8 bits; None: there were none.
    """

    name: str
    folder: Path
    vocabulary: Vocabulary
    aliases: dict[str, str]
    detector: DetectorBackend
    intensity_max: int | None = None

    @property
    def version(self) -> str:
        """``MODEL+BOOK``."""
        return f"{self.name}+{self.vocabulary.version}"

    def unknown_labels(self, truth: Iterable[LabelledImage]) -> list[str]:
        """The class names of annotations that the model's vocabulary lacks, in order."""
        labels = {a.label for p in truth for a in p.annotations}
        return sorted(label for label in labels if normalized_name(label) not in self.aliases)

    def rename_labels(self, truth: Iterable[LabelledImage]) -> list[LabelledImage]:
        """Replace the class names of annotations by those of the model's vocabulary.

        Raises:
            ClassBookError: the vocabulary lacks annotated classes; the message names all of them.
        """
        truth = list(truth)
        if unknown := self.unknown_labels(truth):
            raise ClassBookError(
                f"model {self.name} does not know {', '.join(map(repr, unknown))}; "
                f"it knows {', '.join(self.vocabulary.names)}",
                "Give a class book that has them, as classes or aliases, with --class-book.",
            )

        return [relabel_image(p, lambda name: self.aliases[normalized_name(name)]) for p in truth]

    def predict(self, images: Sequence[ImageRecord], progress: CountCallback) -> dict[str, Prediction]:
        """Predictions by image key, with low-score detections.

        Raises:
            ModelError: the folder does not hold a complete model, or an output is not finite.
        """
        predictions = predict_all(self.detector, self.folder, self.vocabulary, images, progress)
        return {key: replace(value, version=self.version) for key, value in predictions.items()}


def load_evaluated_model(
    model: str, workspace: Workspace | None, book: ClassBook | None, environment: Environment
) -> EvaluatedModel:
    """Find a model by its id in a workspace (or ``champion``), or by its folder.

    Args:
        workspace: where ids are looked up, and whose text encoder is used for a model folder.
        book: the class book to use; default: the workspace's, or the training vocabulary of a model folder.

    Raises:
        ModelError: there is no such model.
    """
    from dsmoe_core.runtimes.loading import training_intensity_max, training_vocabulary

    name, folder, its_workspace = resolve_model(model, workspace)
    if its_workspace is not None:
        book = book or its_workspace.class_book()
        detector = detector_backend(its_workspace, environment)
        vocabulary = book.vocabulary()
    else:
        detector = dsmoe_backend(workspace, environment)
        vocabulary = book.vocabulary() if book else training_vocabulary(folder)
    entries = book.classes if book else ()
    aliases = {normalized_name(alias): entry.name for entry in entries for alias in entry.aliases}
    aliases |= {normalized_name(name): name for name in vocabulary.names}
    intensity_max = training_intensity_max(folder)
    if intensity_max is None and its_workspace is not None:
        intensity_max = its_workspace.intensity_max()
    return EvaluatedModel(name, folder, vocabulary, aliases, detector, intensity_max)
