"""The input size of a new workspace or demo: the given one, or one chosen from its images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli.terminal import line

if TYPE_CHECKING:
    from dsmoe_core.data.annotation_set import AnnotationSet


def with_input_size(
    model: dict[str, Any], px: int | None, images: Path, labels: Sequence[AnnotationSet]
) -> dict[str, Any]:
    """The model settings with the given input size, or one chosen from the images and their boxes."""
    if px is not None:
        return {**model, "image_px": px}
    from dsmoe_core.config import ModelConfig
    from dsmoe_core.data.image_folder import image_files
    from dsmoe_core.data.input_size import choose_input_size, image_sizes, relative_thickness

    sizes = image_sizes(sorted(image_files(images))) if images.is_dir() else []
    if not sizes:
        return model
    boxes = [
        (annotation.box, entry.width, entry.height)
        for annotation_set in labels
        for entry in annotation_set.images
        for annotation in entry.annotations
    ]
    chosen = choose_input_size(sizes, relative_thickness(boxes), ModelConfig.model_validate(model))
    line(f"the network's input is {chosen.image_px} px: {chosen.reason}")
    return chosen.apply(ModelConfig.model_validate(model)).model_dump()
