"""Estimates of the control arm and the blind audit, with 95 % bootstrap intervals over the images.

Control arm: ranked images against random ones of the same rounds. More corrections per image mean that the
ranking finds images from which the model learns more; corrections per second say the same per annotator time.

Blind audit: images are assigned at random to be shown without pre-annotations. If annotators accept what they
are shown, shown images have more boxes than blind ones, or a larger share of the pre-annotations is accepted
than blind annotators would have drawn themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.evaluation.bootstrap import expanded_interval, resample_counts
from dsmoe_core.schema import Arm
from pipelines.workspace.audit import AuditImage
from pipelines.workspace.round_summary import RoundSummary

MIN_IMAGES = 8
"""Images of the smaller group from which on an estimate is stated."""
RESAMPLES = 2000
Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A value with its 95 % interval.

    Attributes:
        low, high: None with fewer than two images in a group.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ControlArm:
    """Ranked images against the control arm; estimates are ranked minus random, None where undefined.

    Attributes:
        ranked, random: number of images that came back labelled and had been shown with pre-annotations.
        enough: whether both groups have at least ``MIN_IMAGES`` images.
        corrections: corrections per image.
        per_second: corrections per second; None without measured times.
    """

    ranked: int
    random: int
    enough: bool
    corrections: Estimate | None
    per_second: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """The estimates as JSON values."""
        return _plain(self)


@dataclass(frozen=True, slots=True)
class BlindAudit:
    """Images shown without pre-annotations against the other images of the same rounds.

    Attributes:
        blind, shown: number of images that came back labelled; blind ones with a known hidden prediction.
        enough: whether both groups have at least ``MIN_IMAGES`` images.
        boxes: boxes per image, shown minus blind.
        predicted: share of the boxes of blind images that the hidden prediction has.
        agreement: share of the hidden pre-annotations that annotators drew.
        accepted: share of the shown pre-annotations that were accepted without a change.
        accepted_minus_agreement: positive where annotators accept more than they would draw.
    """

    blind: int
    shown: int
    enough: bool
    boxes: Estimate | None
    predicted: Estimate | None
    agreement: Estimate | None
    accepted: Estimate | None
    accepted_minus_agreement: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """The estimates as JSON values."""
        return _plain(self)


def images_of_closed_rounds(rows: Sequence[RoundSummary]) -> list[AuditImage]:
    """The records of all closed rounds."""
    return [image for row in rows if row.state == "closed" for image in row.audit]


def control_arm(images: Sequence[AuditImage]) -> ControlArm:
    """Compare the ranked images with the control arm; blind images are left out."""
    shown = [i for i in images if not i.blind]
    ranked, random = ([i for i in shown if i.arm is arm] for arm in (Arm.RANKED, Arm.RANDOM))
    counts = [_columns(group, lambda i: (i.corrections, 1.0)) for group in (ranked, random)]
    times = [
        _columns([i for i in group if i.seconds is not None], lambda i: (i.corrections, i.seconds or 0.0))
        for group in (ranked, random)
    ]
    return ControlArm(
        len(ranked),
        len(random),
        min(len(ranked), len(random)) >= MIN_IMAGES,
        _difference(*counts),
        _difference(*times),
    )


def blind_audit(images: Sequence[AuditImage]) -> BlindAudit:
    """Compare the blind images with the shown ones."""
    blind = [i for i in images if i.blind and i.hidden is not None]
    shown = [i for i in images if not i.blind]
    agreement = _columns(blind, lambda i: (i.agreed or 0, i.hidden or 0))
    accepted = _columns(shown, lambda i: (i.accepted, i.shown))
    return BlindAudit(
        len(blind),
        len(shown),
        min(len(blind), len(shown)) >= MIN_IMAGES,
        _difference(*(_columns(group, lambda i: (i.boxes, 1.0)) for group in (shown, blind))),
        _share(_columns(blind, lambda i: (i.agreed or 0, i.boxes))),
        _share(agreement),
        _share(accepted),
        _difference(accepted, agreement),
    )


def audit_sentences(rows: Sequence[RoundSummary]) -> list[str]:
    """What the control arm and the blind audit of the closed rounds show, in words."""
    images = images_of_closed_rounds(rows)
    if not images:
        return []
    return [_control_sentence(control_arm(images)), _blind_sentence(blind_audit(images))]


def _control_sentence(arm: ControlArm) -> str:
    if not arm.enough or arm.corrections is None:
        return (
            f"Control arm: too few images to compare, {arm.ranked} ranked and {arm.random} random; "
            f"expected at least {MIN_IMAGES} of each."
        )
    verdict = _verdict(
        arm.corrections, "ranked images need more corrections", "ranked images need fewer corrections"
    )
    seconds = f", {_text(arm.per_second, 3)} per second" if arm.per_second else ""
    return (
        f"Control arm: {verdict}: {_text(arm.corrections)} per image{seconds}, ranked minus random "
        f"({arm.ranked} and {arm.random} images)."
    )


def _blind_sentence(audit: BlindAudit) -> str:
    if not audit.enough or audit.boxes is None:
        return (
            f"Blind audit: too few images to compare, {audit.blind} blind and {audit.shown} shown with "
            f"pre-annotations; expected at least {MIN_IMAGES} of each."
        )
    parts = [f"boxes per image {_text(audit.boxes)}, shown minus blind"]
    if audit.predicted is not None:
        parts.append(f"the model has {_percent(audit.predicted)} of the boxes of blind images")
    difference = audit.accepted_minus_agreement
    if difference is None or audit.accepted is None or audit.agreement is None:
        verdict = "no pre-annotation to compare"
    else:
        parts.append(
            f"{_percent(audit.accepted)} of the pre-annotations are accepted unchanged, "
            f"blind annotators drew {_percent(audit.agreement)} of the hidden ones"
        )
        verdict = _verdict(
            difference,
            "annotators accept more than they would draw",
            "annotators do not accept more than they would draw",
        )
    return f"Blind audit: {verdict}: {'; '.join(parts)} ({audit.blind} and {audit.shown} images)."


def _verdict(estimate: Estimate, above: str, below: str) -> str:
    """A statement where the interval leaves out 0."""
    if estimate.low is not None and estimate.low > 0:
        return above
    return below if estimate.high is not None and estimate.high < 0 else "no difference is shown"


def _text(estimate: Estimate, digits: int = 1) -> str:
    interval = f" (95 % {estimate.low:+.{digits}f} to {estimate.high:+.{digits}f})" if _has(estimate) else ""
    return f"{estimate.value:+.{digits}f}{interval}"


def _percent(estimate: Estimate) -> str:
    interval = f" (95 % {estimate.low:.0%} to {estimate.high:.0%})" if _has(estimate) else ""
    return f"{estimate.value:.0%}{interval}"


def _has(estimate: Estimate) -> bool:
    return estimate.low is not None and estimate.high is not None


def _columns(images: Sequence[AuditImage], values: Callable[[AuditImage], tuple[float, float]]) -> Floats:
    """Numerator and denominator of a ratio for each image, (n, 2)."""
    return np.array([values(image) for image in images], dtype=np.float64).reshape(-1, 2)


def _share(group: Floats) -> Estimate | None:
    """Sum of the numerators by the sum of the denominators; None if that is 0."""
    return _estimate([group], lambda ratios: ratios[0])


def _difference(first: Floats, second: Floats) -> Estimate | None:
    """Ratio of the first group minus that of the second; None if one of them is undefined."""
    return _estimate([first, second], lambda ratios: ratios[0] - ratios[1])


def _estimate(groups: Sequence[Floats], combine: Callable[[list[Floats]], Floats]) -> Estimate | None:
    if any(group[:, 1].sum() <= 0 for group in groups):
        return None
    value = float(combine([_ratio(group.sum(0, keepdims=True)) for group in groups])[0])
    smallest = min(len(group) for group in groups)
    if smallest < 2:
        return Estimate(value, None, None)
    resampled = [
        _ratio(resample_counts(len(group), RESAMPLES, seed) @ group) for seed, group in enumerate(groups)
    ]
    ends = expanded_interval(combine(resampled), smallest)
    return Estimate(value, *(ends or (None, None)))


def _ratio(sums: Floats) -> Floats:
    """NaN where the denominator is 0."""
    return np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1e-12), np.nan)


def _plain(estimates: ControlArm | BlindAudit) -> dict[str, Any]:
    def rounded(value: Any) -> Any:
        if isinstance(value, tuple):
            return dict(zip(Estimate._fields, map(rounded, value), strict=True))
        return round(value, 4) if isinstance(value, float) else value

    return {name: rounded(value) for name, value in asdict(estimates).items()}
