"""What words do, as it was measured: the paper that a version of the class book needs to be published."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dsmoe_core.errors import ClassBookError

Verdict = Literal["better", "no worse", "worse", "undecided"]


class TextEvaluationReport(BaseModel):
    """One class book against another, read by one model, on one fixed set of images.

    Attributes:
        book: version that was judged.
        against: version that it was compared with.
        model: id of the model that read both.
        data: name of the set, with the number of its images.
        verdict: ``undecided`` where the interval holds both a gain and a loss that matter.
        reason: the verdict in one sentence, with its figures.
        made: day, ISO 8601.
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
    def lets_publish(self) -> bool:
        """Whether the judged version may take the other one's place without a reason given by a person."""
        return self.verdict in ("better", "no worse")

    @classmethod
    def load(cls, path: Path) -> TextEvaluationReport:
        """Read a report's JSON; what more it holds (curves, classes, controls) is for people.

        Raises:
            ClassBookError: it is missing, or no report.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ClassBookError(
                f"the judge report {path} cannot be read: {error.strerror}",
                "Make one with `dsmoe classes judge`.",
            ) from None
        except (ValidationError, UnicodeDecodeError):
            raise ClassBookError(
                f"{path} is no judge report", "Make one with `dsmoe classes judge`."
            ) from None
