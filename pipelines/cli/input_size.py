"""The input size of a new workspace or demo: the given one, or one chosen from its images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli.terminal import line

if TYPE_CHECKING:
    from dsmoe_core.data.annotation_set import AnnotationSet


def with_input_size(
    model: dict[str, Any],
    px: int | None,
    images: Path,
    labels: Sequence[AnnotationSet],
    *,
    choose_strides: bool,
) -> dict[str, Any]:
    """The model settings with an input size and head strides that fit the images and their boxes.

    Args:
        px: side of the input in pixels; None: chosen.
        images: folder; without a readable image nothing is chosen.
        labels: of the images; may be empty.
        choose_strides: choose the strides of the head; else those of ``model`` stay.

    Raises:
        SettingsError: a setting is wrong, such as an input that is no multiple of 32.
    """
    from dsmoe_core.config import ModelConfig
    from dsmoe_core.data.image_folder import image_files
    from dsmoe_core.data.input_size import (
        choose_head_strides,
        choose_input_size,
        image_sizes,
        relative_thickness,
    )
    from pipelines.settings.validation import validate_settings

    given = {} if px is None else {"image_px": px}
    sizes = image_sizes(sorted(image_files(images))) if images.is_dir() else []
    if not sizes:
        return {**model, **given}
    defects = relative_thickness(
        (annotation.box, entry.width, entry.height)
        for annotation_set in labels
        for entry in annotation_set.images
        for annotation in entry.annotations
    )
    config = validate_settings(ModelConfig, {**model, **given}, "the command line")
    if px is None:
        chosen = choose_input_size(sizes, defects, config)
        line(f"the network's input is {chosen.image_px} px: {chosen.reason}")
        config = chosen.apply(config)
    if not choose_strides:
        return config.model_dump()
    strides = choose_head_strides(sizes, defects, config)
    if strides != config.head_strides:
        line(
            f"the head has no level for tiny defects: hardly any of the {len(defects)} labelled ones is tiny"
        )
    return config.model_copy(update={"head_strides": strides}).model_dump()
