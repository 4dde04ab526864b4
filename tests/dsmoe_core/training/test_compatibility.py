"""Networks that cannot be trained with their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import QUICK, SMALL, train

from dsmoe_core.config import LossWeights, ModelConfig, TrainingConfig
from dsmoe_core.errors import SettingsError
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.training.compatibility import incompatibility
from pipelines.settings.detector import DetectorSettings
from pipelines.settings.validation import validate_settings

WITH_CONFLICTS = QUICK.model_copy(update={"losses": LossWeights(gradient_conflict=0.1)})


@pytest.mark.parametrize("head_input", ["f_enc", "f_b", "f_e"])
def test_conflicting_gradients_need_a_head_that_reads_the_experts(
    head_input: str, tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    model = SMALL.model_copy(update={"head_input": head_input})
    with pytest.raises(SettingsError, match=head_input):
        train(tmp_path / "out", images, vocabulary, model=model, training=WITH_CONFLICTS)
    assert not (tmp_path / "out").exists()
    raw = {"model": {"head_input": head_input}, "training": {"losses": {"gradient_conflict": 0.1}}}
    with pytest.raises(SettingsError, match=head_input):
        validate_settings(DetectorSettings, raw, "the test")


@pytest.mark.parametrize(
    "change", [{"label_floor": 0.0}, {"positive_beta": 2.0}, {"box_weighting": "alignment"}], ids=str
)
def test_settings_of_qfl_and_ciou_need_row_f(change: dict[str, Any]) -> None:
    raw = {"training": {"losses": change}}
    with pytest.raises(SettingsError, match=next(iter(change))):
        validate_settings(DetectorSettings, raw, "the test")
    settings = validate_settings(DetectorSettings, {**raw, "model": {"ablation": "F"}}, "the test")
    assert settings.model.paper_losses


def test_the_default_losses_are_cross_entropy_and_iou() -> None:
    assert not DetectorSettings().model.paper_losses


def test_either_setting_alone_is_compatible() -> None:
    assert incompatibility(SMALL.model_copy(update={"head_input": "f_e"}), TrainingConfig()) is None
    assert incompatibility(ModelConfig(), WITH_CONFLICTS) is None
    assert incompatibility(SMALL.model_copy(update={"ablation": "C"}), WITH_CONFLICTS) is None
