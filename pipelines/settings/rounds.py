"""Settings of a round."""

from __future__ import annotations

from pydantic import Field

from dsmoe_core.config import Frozen


class RoundSettings(Frozen):
    """How the images of a round are selected and what annotators are shown on them."""

    budget: int = Field(40, ge=1, description="images sent out in a round")
    budget_boxes: int | None = Field(
        None,
        ge=1,
        description="expected boxes in a round; the selection ends when this budget or another is reached. "
        "It needs a model, so it does not hold for the first round",
    )
    budget_minutes: float | None = Field(
        None, gt=0, description="expected minutes of annotator time in a round; as budget_boxes"
    )
    minutes: float | None = Field(
        None,
        gt=0,
        description="time for the training of a round; none: detector.images_seen is its length",
    )
    acquisition: str = Field(
        "expected_gain",
        description="acquisition function that ranks the pool: a key of ACQUISITION_FUNCTIONS, see "
        "pipelines/rounds/acquisition",
    )
    random_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of the budget that is sampled at random: the control arm; unless it is 0, at "
        "least one image of 20",
    )
    blind_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of the selected images that is shown without pre-annotations: the blind audit; "
        "unless it is 0, at least one image of 20",
    )
    duplicate_similarity: float | None = Field(
        0.99,
        gt=0,
        le=1,
        description="cosine of the embeddings from which the pixels of two images are compared: of images "
        "that show the same, one is sent in a round, and none if a test image shows it; none: send all",
    )
    class_minimum: float = Field(
        1.0,
        ge=0,
        description="expected boxes of every class in a round, if the pool has them; for expected_gain",
    )
    candidates: int | None = Field(
        None, ge=1, description="rank a random sample of the pool of this size; none: the whole pool"
    )
    pre_annotation_score: float | None = Field(
        None,
        ge=0,
        le=1,
        description="lowest score of a detection that is shown as pre-annotation; none: chosen for each "
        "class so that the expected correction time is least, 0.3 while there is no test set",
    )
    max_pre_annotations: int = Field(
        50, ge=1, description="most pre-annotations on an image; those with the highest scores are shown"
    )
