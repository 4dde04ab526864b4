"""Reads regions from the results of Label Studio's annotations and predictions; none is lost silently.

A region may have several results with the same id, such as its shape and its class. A region that has no box,
or not exactly one class, is left out and listed with the reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from annotate.studio.class_change import labels_of, value_of
from annotate.studio.controls import FRAME, is_image_feedback, is_smart_prompt
from annotate.studio.protocol import Origin, Region
from annotate.studio.shapes import Outline, RegionError, outline
from dsmoe_core.data.import_account import Conversion, Reason
from dsmoe_core.schema import Box

EDGE_TOLERANCE_PX: Final = 0.05
"""A box that reaches less over the edge of its image is not clipped: the browser rounds to screen pixels."""
_ORIGINS: Final[Mapping[str, Origin]] = {
    "manual": "manual",
    "prediction": "prediction",
    "prediction-changed": "prediction-changed",
}
_NOT_REGIONS: Final = frozenset(
    ("choices", "textarea", "rating", "number", "datetime", "taxonomy", "ranker", "pairwise", "relation")
)
"""Types of results that have no place in the image."""

Results = Sequence[Mapping[str, Any]]


class LeftOutRegion(NamedTuple):
    """A region that was not taken.

    Attributes:
        detail: the values that are wrong.
    """

    id: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class ReadRegions:
    """All regions of an annotation or prediction.

    Attributes:
        regions: those that were taken.
        clipped: of those, the ids of the clipped ones, with the corners before clipping.
        conversions: of those, the number that Label Studio does not state as boxes.
        left_out: those that were not taken.
    """

    regions: tuple[Region, ...] = ()
    clipped: Mapping[str, str] = field(default_factory=dict)
    conversions: Mapping[Conversion, int] = field(default_factory=dict)
    left_out: tuple[LeftOutRegion, ...] = ()

    @property
    def total(self) -> int:
        """Number of regions in the annotation or prediction."""
        return len(self.regions) + len(self.left_out)


def read_regions(results: Iterable[Any], width: int, height: int) -> ReadRegions:
    """All regions in the results of an annotation or prediction.

    Image-level results (``controls.image_feedback``) and prompts of smart tools (``read_prompts``) are not
    regions.

    Args:
        width, height: of the image, in pixels.
    """
    return _read((r for r in results if not _is_other(r)), outline, width, height)


def read_prompts(results: Iterable[Any], width: int, height: int) -> ReadRegions:
    """All positive smart-tool prompts left in the results of an annotation; see ``read_regions``.

    The region of a prompt is the frame, or a box of 2 x 2 px around the click.
    """
    prompts = (r for r in results if is_smart_prompt(r) and r.get("is_positive") is not False)
    return _read(prompts, _prompt_outline, width, height)


def _is_other(result: object) -> bool:
    """Whether a result is something else than a region."""
    kind = str(result.get("type")) if isinstance(result, Mapping) else ""
    return is_image_feedback(result) or is_smart_prompt(result) or kind in _NOT_REGIONS


def _prompt_outline(result: Mapping[str, Any], width: int, height: int) -> Outline:
    if result.get("from_name") == FRAME:
        return outline(result, width, height)
    point = {**value_of(result), "width": 0, "height": 0, "rotation": 0}
    x, y, *_ = outline({"type": "rectangle", "value": point}, width, height)
    return Outline(x - 1, y - 1, x + 1, y + 1)


def _read(
    results: Iterable[Any],
    find_outline: Callable[[Mapping[str, Any], int, int], Outline],
    width: int,
    height: int,
) -> ReadRegions:
    regions: list[Region] = []
    left_out: list[LeftOutRegion] = []
    clipped: dict[str, str] = {}
    conversions: Counter[Conversion] = Counter()
    for region_id, group in _group_by_region(results).items():
        try:
            label = _label(group)
            around = find_outline(group[0], width, height)
            box = around.box(width, height)
        except RegionError as error:
            left_out.append(LeftOutRegion(region_id, error.reason, error.problem))
            continue
        regions.append(_region(region_id, group[0], box, label))
        if any(abs(a - b) > EDGE_TOLERANCE_PX for a, b in zip(around[:4], box.corners, strict=True)):
            clipped[region_id] = f"({', '.join(f'{value:.1f}' for value in around[:4])})"
        if around.conversion is not None:
            conversions[around.conversion] += 1
    return ReadRegions(tuple(regions), clipped, conversions, tuple(left_out))


def _group_by_region(results: Iterable[Any]) -> dict[str, Results]:
    """The results of each region, by a region id that is unique in the annotation.

    Results with the same id and place belong to one region. Another place, or a missing id, makes another
    region, which gets an id of its own.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    ids: dict[tuple[str, str], str] = {}
    for number, entry in enumerate(results):
        result = entry if isinstance(entry, Mapping) else {"value": entry}
        name = result.get("id")
        place = _place(result) if name is not None else str(number)
        key = (str(name), place)
        if key not in ids:
            ids[key] = str(name) if str(name) not in groups else f"{name}#{number}"
        groups.setdefault(ids[key], []).append(result)
    return dict(groups)


def _place(result: Mapping[str, Any]) -> str:
    """A text that two results have in common if and only if they are at the same place."""
    value = result.get("value")
    if isinstance(value, Mapping):
        value = {name: part for name, part in value.items() if not str(name).endswith("labels")}
    return json.dumps(value, sort_keys=True, default=str)


def _label(results: Results) -> str:
    """The class of a region.

    Raises:
        RegionError: the region has no class, or several.
    """
    labels = sorted(name for name in labels_of(results) if name.strip())
    if not labels:
        raise RegionError("it has no class", Reason.NO_CLASS)
    if len(labels) > 1:
        raise RegionError(f"its classes are {', '.join(labels)}; expected one", Reason.SEVERAL_CLASSES)
    return labels[0]


def _region(region_id: str, result: Mapping[str, Any], box: Box, label: str) -> Region:
    score = result.get("score")
    return Region(
        id=region_id,
        box=box,
        label=label,
        origin=_ORIGINS.get(str(result.get("origin")), "manual"),
        score=float(score) if isinstance(score, int | float) else None,
    )
