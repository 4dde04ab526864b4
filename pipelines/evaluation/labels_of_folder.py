"""Labels of a folder with predictions of a model, for the search for label errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.external_images import read_external_images
from pipelines.evaluation.report.evaluated_model import EvaluatedModel
from pipelines.label_errors.data import LabelsToCheck
from pipelines.progress import ProgressReporter


@contextmanager
def labels_of_folder(
    annotations: AnnotationSet,
    images: Path,
    model: EvaluatedModel,
    *,
    max_pixels: int,
    max_images: int | None,
    progress: ProgressReporter,
) -> Iterator[LabelsToCheck]:
    """Predict annotated images with a model that must not have been trained on them.

    The images can be read inside the ``with`` block only.

    Args:
        max_images: use the first ones only.

    Raises:
        DataError: no image can be read.
        ClassBookError: the model does not know an annotated class.
    """
    with TemporaryDirectory(prefix="dsmoe-") as scratch:
        progress.status("reading images")
        external = read_external_images(
            AnnotationSet(annotations.classes, annotations.images[:max_images]),
            images,
            Path(scratch),
            max_pixels=max_pixels,
            intensity_max=model.intensity_max,
            progress=progress.advance,
        )
        labelled = tuple(model.rename_labels(external.labelled))
        progress.status(f"{model.name}: predicting")
        predictions = model.predict([item.image for item in labelled], progress.advance)
        models = {model.name: len(labelled)}
        yield LabelsToCheck(labelled, predictions, model.vocabulary.names, models)
