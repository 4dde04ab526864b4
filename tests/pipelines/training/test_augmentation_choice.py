"""The choice of augmentations with a trial: it is kept, resumed, and made again when something changes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import SMALL, Killed

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.augment.choice import PASTE, AugmentationChoice
from dsmoe_core.schema import (
    Annotation,
    Box,
    ClassText,
    Detection,
    ImageRecord,
    LabelledImage,
    Prediction,
    Routing,
    Vocabulary,
)
from dsmoe_core.training.early_stopping import hold_out
from pipelines.detectors.backend import PredictFunction
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.progress import SilentProgress
from pipelines.training.augmentation_choice import FILE, choose_augmentation

VOCABULARY = Vocabulary((ClassText("crack", "a dark line"), ClassText("dent", "a dark spot")))
TRAINING = TrainingConfig(images_seen=400, inner_split=0.5)


def labelled(number: int, label: str) -> LabelledImage:
    """An image with one box, which is at another place in each image."""
    record = ImageRecord(f"image {number}", f"{number}.png", Path(f"{number}.png"), 100, 100)
    return LabelledImage(record, (Annotation(Box(number, 10, number + 20, 30), label),))


IMAGES = [labelled(number, "crack" if number % 2 else "dent") for number in range(24)]


class FakeBackend(DSMoEBackend):
    """Records its trainings; the model that is trained without quarter turns finds all boxes, the other none.

    Args:
        killed_in: name of the folder whose training is killed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: ModelConfig = SMALL,
        encoder_from: Path | None = None,
        killed_in: str | None = None,
    ) -> None:
        super().__init__(model, folder / "texts", encoder_from=encoder_from)
        self.fits: list[dict[str, Any]] = []
        self._killed_in = killed_in

    def fit(self, **arguments: Any) -> dict[str, Any]:
        arguments.pop("progress")
        arguments["out"].mkdir(parents=True, exist_ok=True)
        self.fits.append(arguments)
        if arguments["out"].name == self._killed_in:
            raise Killed
        return {}

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        truth = {item.image.key: item for item in IMAGES}

        def predict(images: Iterable[ImageRecord]) -> Iterator[Prediction]:
            for image in images:
                boxes = truth[image.key].annotations if model.name == "without" else ()
                detections = tuple(Detection(a.box, a.label, 0.9, {a.label: 0.9}, 0.1) for a in boxes)
                yield Prediction(image.key, detections, Routing((0,), (1.0,), 0.0), 0.0, "")

        return predict


def choose(
    detector: FakeBackend,
    out: Path,
    images: Sequence[LabelledImage] = IMAGES,
    vocabulary: Vocabulary = VOCABULARY,
    training: TrainingConfig = TRAINING,
) -> AugmentationChoice:
    """The choice of a training that starts from initial weights."""
    return choose_augmentation(detector, images, vocabulary, training, out, None, SilentProgress())


def trials(detector: FakeBackend) -> list[str]:
    return [arguments["out"].name for arguments in detector.fits]


def test_a_trial_switches_off_turns_that_lower_the_accuracy(tmp_path: Path) -> None:
    detector = FakeBackend(tmp_path)
    choice = choose(detector, tmp_path / "out")
    assert choice.changes == {"turns": 0.0}
    assert len(choice.reasons) == 1
    rest, held_out = hold_out(IMAGES, TRAINING.model_copy(update={"patience": 1}))
    assert min(len(rest), len(held_out)) >= 4
    for arguments, turns in zip(detector.fits, (1.0, 0.0), strict=True):
        assert arguments["images"] == rest
        training = arguments["training"]
        assert (training.turns, training.images_seen, training.patience) == (turns, 100, None)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [FILE]


def test_a_choice_is_kept_in_its_file(tmp_path: Path) -> None:
    detector = FakeBackend(tmp_path)
    choice = choose(detector, tmp_path / "out")
    assert json.loads((tmp_path / "out" / FILE).read_text())["changes"] == choice.changes
    assert choose(detector, tmp_path / "out", IMAGES[::-1]) == choice
    assert trials(detector) == ["with", "without"]


def test_an_interrupted_trial_is_resumed_in_its_folder(tmp_path: Path) -> None:
    killed = FakeBackend(tmp_path, killed_in="without")
    with pytest.raises(Killed):
        choose(killed, tmp_path / "out")
    assert not (tmp_path / "out" / FILE).exists()
    resumed = FakeBackend(tmp_path)
    assert choose(resumed, tmp_path / "out").changes == {"turns": 0.0}
    assert resumed.fits == killed.fits
    assert all(arguments["out"].parent == tmp_path / "out" / "augmentation" for arguments in resumed.fits)


RELABELLED = [replace(IMAGES[0], annotations=(Annotation(Box(0, 10, 20, 30), "crack"),)), *IMAGES[1:]]
REDESCRIBED = Vocabulary((ClassText("crack", "a bright line"), VOCABULARY.classes[1]))


@pytest.mark.parametrize(
    "changes",
    [
        {"images": RELABELLED},
        {"vocabulary": REDESCRIBED},
        {"training": TRAINING.model_copy(update={"batch": 8})},
    ],
    ids=["label", "description", "setting"],
)
def test_changed_data_or_settings_make_a_new_choice(changes: dict[str, Any], tmp_path: Path) -> None:
    detector = FakeBackend(tmp_path)
    choose(detector, tmp_path / "out")
    choose(detector, tmp_path / "out", **changes)
    assert trials(detector) == ["with", "without"] * 2


def test_another_network_or_other_initial_weights_make_a_new_choice(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"first")
    larger = SMALL.model_copy(update={"image_px": 128})
    for model, content in ((SMALL, b"first"), (larger, b"first"), (larger, b"second")):
        weights.write_bytes(content)
        detector = FakeBackend(tmp_path, model=model, encoder_from=weights)
        choose(detector, tmp_path / "out")
        assert trials(detector) == ["with", "without"]


@pytest.mark.parametrize("has_start", [False, True])
def test_nothing_is_pasted_if_the_encoder_is_frozen(has_start: bool, tmp_path: Path) -> None:
    """Without weights to start from, the encoder is trained after all."""
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"")
    detector = FakeBackend(tmp_path, encoder_from=weights if has_start else None)
    images = [labelled(number, "crack" if number else "dent") for number in range(24)]
    frozen = TRAINING.model_copy(update={"encoder": "frozen"})
    pasted = choose(detector, tmp_path / "out", images, training=frozen).changes.get("paste", 0.0)
    assert pasted == (0.0 if has_start else PASTE)
