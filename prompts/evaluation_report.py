"""Report on the effect of a class book's texts; a version needs one to be published."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dsmoe_core.errors import ClassBookError

Verdict = Literal["better", "no worse", "worse", "undecided"]


class TextEvaluationReport(BaseModel):
    """Comparison of two class books with one model on one fixed set of images.

    Attributes:
        book: version that was evaluated.
        against: version that it was compared with.
        model: id of the model that was run with both.
        data: name of the image set, with its number of images.
        verdict: ``undecided`` if the interval contains both a relevant gain and a relevant loss.
        reason: the verdict in one sentence, with its metrics.
        made: date, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    book: str = Field(min_length=1)
    against: str = Field(min_length=1)
    model: str = Field(min_length=1)
    data: str
    verdict: Verdict
    reason: str
    made: str

    @property
    def allows_publishing(self) -> bool:
        """Whether the evaluated version may replace the other one without a reason given by a person."""
        return self.verdict in ("better", "no worse")

    @classmethod
    def load(cls, path: Path) -> TextEvaluationReport:
        """Read the JSON of a report; its other parts (curves, classes, controls) are ignored.

        Raises:
            ClassBookError: the file is missing or is not a report.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ClassBookError(
                f"the evaluation report {path} cannot be read: {error.strerror}",
                "Make one with `dsmoe classes evaluate`.",
            ) from None
        except (ValidationError, UnicodeDecodeError):
            raise ClassBookError(
                f"{path} is not an evaluation report", "Make one with `dsmoe classes evaluate`."
            ) from None
