"""Settings of the promotion gate."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from dsmoe_core.config import Frozen

Margin = Annotated[float, Field(ge=0, le=1)]


class GateSettings(Frozen):
    """The promotion gate: when a candidate replaces the champion."""

    checks: tuple[str, ...] = Field(
        ("better", "class_margin", "labels"),
        description="checks that a candidate must pass, keys of GATE_CHECKS, see pipelines/rounds/gate; "
        "empty: every candidate is promoted",
    )
    min_gain: float = Field(
        0.0, ge=0, lt=1, description="mAP@.5:.95 must exceed the champion's by more than this"
    )
    confidence: float = Field(
        0.95, ge=0.5, lt=1, description="of the two-sided intervals of the differences to the champion"
    )
    resamples: int = Field(2000, ge=200, le=100_000, description="bootstrap resamples of the test images")
    group_pattern: str | None = Field(
        None,
        description="regular expression of a part of the image names, such as board design, line or camera; "
        "the test images are resampled by groups with the same part; none: image by image",
    )
    class_margin: Margin = Field(0.1, description="largest loss of mAP@.5:.95 that a class may have")
    class_margins: dict[str, Margin] = Field(
        default_factory=dict, description="class_margin of single classes, by name"
    )
    min_boxes: int = Field(
        10, ge=1, description="boxes that a class needs in the test set for an estimate of its own"
    )
    max_label_errors: Margin = Field(
        0.02,
        description="how much higher than in the test set the share of probable label errors may be in a "
        "round whose images are new to the candidate, for the check labels",
    )
    max_calibration_error: float = Field(
        0.15, ge=0, le=1, description="largest expected calibration error, for the check calibration"
    )
    max_latency_factor: float = Field(
        1.2, gt=0, description="largest ratio to the champion's time per image, for the check latency"
    )
    approval: bool = Field(
        False,
        description="a candidate that passes is held until `dsmoe models promote` or `dsmoe models refuse`",
    )
    shadow: bool = Field(
        False,
        description="a candidate that fails no check predicts with the champion on the images of the next "
        "round; the corrections of the annotators decide when it is closed",
    )

    @field_validator("group_pattern")
    @classmethod
    def _is_a_regular_expression(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"is not a regular expression: {error}") from error
        return pattern

    def margin(self, label: str) -> float:
        """Largest loss of mAP@.5:.95 of a class."""
        return self.class_margins.get(label, self.class_margin)

    def group(self, name: str) -> str:
        """The group of an image by its name: the first capture group of the pattern, or the whole match.

        Images that the pattern does not match are a group of their own together. Without a pattern, every
        name is a group.
        """
        if self.group_pattern is None:
            return name
        match = re.search(self.group_pattern, name)
        if match is None:
            return ""
        return (match[1] if match.re.groups else match[0]) or ""
