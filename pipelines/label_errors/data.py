"""Labels and predictions for the search for label errors: of a workspace, or of a file of predictions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

from dsmoe_core.errors import ClassBookError, DataError, FormatError
from dsmoe_core.schema import Box, Detection, LabelledImage, Prediction, Routing
from pipelines.label_errors.label_error import FindLabelErrors, LabelError
from pipelines.workspace.relabel import or_drop, relabel_image, relabel_prediction
from pipelines.workspace.workspace import Workspace


class LabelsToCheck(NamedTuple):
    """Labelled images with predictions.

    Attributes:
        labelled: the images to check.
        predictions: of every image, by key.
        classes: in the order of the class book.
        models: number of images that each model predicted.
        left_out: number of labelled images without a prediction that may be used.
        reference: images with trusted labels, which help to estimate the probabilities.
    """

    labelled: tuple[LabelledImage, ...]
    predictions: Mapping[str, Prediction]
    classes: tuple[str, ...]
    models: Mapping[str, int]
    left_out: int = 0
    reference: tuple[LabelledImage, ...] = ()

    def find(self, method: FindLabelErrors) -> list[LabelError]:
        """The probable errors in the images to check, most probable first."""
        keys = {item.image.key for item in self.labelled}
        found = method((*self.labelled, *self.reference), self.predictions, self.classes)
        return [error for error in found if error.image.key in keys]


def labels_of_workspace(workspace: Workspace) -> LabelsToCheck:
    """The latest labels of a workspace, see ``labels_with_predictions``.

    Raises:
        DataError: no labelled image has a prediction that may be used.
    """
    models = [card.id for card in reversed(workspace.registry.cards())]
    labels = labels_with_predictions(workspace, list(workspace.annotations().values()), models)
    if not labels.labelled:
        raise DataError(
            f"none of the {labels.left_out} labelled images of {workspace.path} has a stored prediction "
            "of a model that was not trained on it",
            "Annotate a round that a model pre-annotated, or give a model with --model.",
        )
    return labels


def labels_with_predictions(
    workspace: Workspace, labelled: Sequence[LabelledImage], models: Sequence[str]
) -> LabelsToCheck:
    """Labelled images of a workspace with stored predictions of models that were not trained on them.

    Such predictions exist of every image that was sent with a model in use: the model that pre-annotated it
    had never seen it. Images of the first round, and labels that were imported, have none and are left out.
    Boxes of classes that the class book no longer has are left out, too. The test set is the reference.

    Args:
        models: ids; of several models that predicted an image, the first one is used.
    """
    rename = or_drop(workspace.class_book())
    to_check, test = (
        [relabel_image(item, rename) for item in items] for items in (labelled, workspace.test_set())
    )
    keys = {item.image.key for item in (*to_check, *test)}
    predictions, sources = _out_of_fold(workspace, keys, models)
    used, reference = (
        tuple(item for item in items if item.image.key in predictions) for items in (to_check, test)
    )
    return LabelsToCheck(
        used,
        predictions,
        workspace.class_book().vocabulary().names,
        Counter(sources[item.image.key] for item in used),
        len(to_check) - len(used),
        reference,
    )


def _out_of_fold(
    workspace: Workspace, keys: Set[str], models: Sequence[str]
) -> tuple[dict[str, Prediction], dict[str, str]]:
    """The prediction of each image, and the model that it is of.

    Of a model's predictions with several class books, those with the published one are preferred.
    """
    rename = or_drop(workspace.class_book())
    found: dict[str, Prediction] = {}
    sources: dict[str, str] = {}
    for model in models:
        dataset = workspace.dataset_version(workspace.registry.card(model).dataset_version)
        wanted = keys - {item.key for item in dataset.train}
        published = workspace.prediction_version(model)
        versions = [path.stem for path in (workspace.path / "predictions").glob(f"{model}+*.jsonl")]
        for version in sorted(versions, key=lambda name: (name != published, name)):
            stored = workspace.prediction_store.lookup(version)
            for key in [key for key in stored if key in wanted and key not in found]:
                found[key] = relabel_prediction(stored[key], rename)
                sources[key] = model
    return found, sources


def read_predictions(
    path: Path, labelled: Sequence[LabelledImage], classes: Sequence[str]
) -> dict[str, Prediction]:
    """Predictions in a COCO file, as ``dsmoe predict`` writes them, by image key.

    Without ``probabilities`` only the class of a detection has a probability, its score.

    Raises:
        FormatError: the file is not such a file, or lacks an image.
        ClassBookError: it has a class that the labels lack.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in document["images"]}
        labels = {category["id"]: category["name"] for category in document["categories"]}
        detections: dict[str, list[Detection]] = {name: [] for name in names.values()}
        for row in document["annotations"]:
            detections[names[row["image_id"]]].append(_detection(row, labels[row["category_id"]], classes))
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{path} is not a COCO file of predictions with scores ({type(error).__name__}: {error})",
            "Give a file that `dsmoe predict --json` writes.",
        ) from error
    if unknown := sorted({d.label for of_image in detections.values() for d in of_image} - set(classes)):
        raise ClassBookError(f"{path} has classes that the labels lack: {', '.join(unknown)}", "Rename them.")
    missing = [item.image.name for item in labelled if item.image.name not in detections]
    if missing:
        raise FormatError(
            f"{path} lacks {len(missing)} of {len(labelled)} labelled images, such as {missing[0]}",
            "Predict all labelled images.",
        )
    return {
        item.image.key: Prediction(
            item.image.key, tuple(detections[item.image.name]), Routing((), (), 0.0), 0.0, path.stem
        )
        for item in labelled
    }


def _detection(row: Mapping[str, Any], label: str, classes: Sequence[str]) -> Detection:
    x, y, width, height = map(float, row["bbox"])
    given = row.get("probabilities", {label: row["score"]})
    probabilities = {name: float(given.get(name, 0.0)) for name in classes}
    box = Box(x, y, x + width, y + height)
    return Detection(box, label, float(row["score"]), probabilities, float(row.get("entropy", 0.0)))
