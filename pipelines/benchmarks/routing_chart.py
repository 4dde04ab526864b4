"""Image of the experts' specialisation: the weight of each expert at the true boxes of each class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from dsmoe_core.errors import FormatError, SettingsError
from pipelines.benchmarks.results import read_result
from pipelines.benchmarks.simulation.plot import require_matplotlib

SUFFIX = ".svg"
BACKGROUND = '<rect width="100%" height="100%" fill="white"/>'
"""The text is dark, so the image has its own background on a dark page."""
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Routing(BaseModel):
    """The part of a routing.json that the image shows.

    Attributes:
        weights: mean weight of each expert at the boxes of each class; all 0 for a class without a box.
    """

    classes: list[str]
    weights: list[list[Weight]]
    experts: int = Field(ge=1)
    boxes: int = Field(ge=0)

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if {len(row) for row in self.weights} - {self.experts} or len(self.classes) != len(self.weights):
            raise ValueError("weights needs a row for each class and a column for each expert")
        return self

    def of_classes_with_boxes(self) -> list[tuple[str, list[float]]]:
        """The rows of the image."""
        return [(name, row) for name, row in zip(self.classes, self.weights, strict=True) if any(row)]


def check_chart_path(path: Path) -> None:
    """Check that an image, and no other file, is to be written.

    Raises:
        SettingsError: the name of the file does not end in .svg.
    """
    if path.suffix.lower() != SUFFIX:
        raise SettingsError(
            f"the chart is {path}; expected a name that ends in {SUFFIX}", "Give another name."
        )


def read_routing(path: Path) -> Routing:
    """Read a result file of ``dsmoe benchmark knockout``.

    Raises:
        FormatError: the file is not a routing.json, or has no routing.
    """
    measured = read_result(path)
    if "classes" not in measured:
        raise FormatError(f"{path} has no routing", "Evaluate images with boxes, and a model with experts.")
    try:
        routing = Routing.model_validate(measured)
    except ValidationError as error:
        raise FormatError(
            f"{path} is not the routing.json of a knock-out", "Write one with `dsmoe benchmark knockout`."
        ) from error
    if not routing.of_classes_with_boxes():
        raise FormatError(f"{path} has no class with a box", "Evaluate images with boxes.")
    return routing


def routing_chart(routing: Routing) -> str:
    """Heat map of class and expert, as SVG. Classes without a box are left out.

    Raises:
        PrerequisiteError: matplotlib is not installed.
    """
    require_matplotlib()
    from pipelines.evaluation.report.charts import heat_chart

    rows = routing.of_classes_with_boxes()
    title = f"weight at {routing.boxes:,} true boxes"
    columns = [f"expert {number}" for number in range(1, routing.experts + 1)]
    svg = heat_chart({title: [row for _, row in rows]}, [name for name, _ in rows], columns)
    head, _, rest = svg.partition(">")
    return f"{head}>{BACKGROUND}{rest}"
