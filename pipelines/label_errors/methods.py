"""Methods that search for label errors, by name.

To add one, write a ``FindLabelErrors`` and an entry here.
"""

from __future__ import annotations

from typing import NamedTuple

from pipelines.label_errors.calibrated import calibrated_label_errors
from pipelines.label_errors.label_error import FindLabelErrors
from pipelines.label_errors.mistakenness import mistakenness_label_errors
from pipelines.label_errors.objectlab import objectlab_f1_label_errors, objectlab_label_errors


class LabelErrorMethod(NamedTuple):
    """A method with a description for the help."""

    description: str
    find: FindLabelErrors


LABEL_ERROR_METHODS: dict[str, LabelErrorMethod] = {
    "dsmoe": LabelErrorMethod("calibrated class pairs and localisation", calibrated_label_errors),
    "objectlab": LabelErrorMethod("cleanlab's ObjectLab", objectlab_label_errors),
    "objectlab-f1": LabelErrorMethod(
        "ObjectLab with its thresholds at the score of the best F1", objectlab_f1_label_errors
    ),
    "mistakenness": LabelErrorMethod("FiftyOne's mistakenness", mistakenness_label_errors),
}
