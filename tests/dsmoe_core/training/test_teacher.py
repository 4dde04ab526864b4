"""Training with a teacher: classes by name, micro-batches, resuming, fingerprints and what is learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from tiny import QUICK, SMALL, HashEncoder, Killed, train

from dsmoe_core.assign import flatten_levels
from dsmoe_core.build import build
from dsmoe_core.checkpoint import CARD, WEIGHTS, load_model, read_tensors, save_model
from dsmoe_core.config import LossWeights, ModelConfig, Preprocessing
from dsmoe_core.data.batches import TrainingSet
from dsmoe_core.data.letterbox import LetterboxReader
from dsmoe_core.errors import ModelError
from dsmoe_core.schema import ClassText, LabelledImage, LabelledSet, Vocabulary
from dsmoe_core.text_embeddings import embed_vocabulary
from dsmoe_core.training.run import fingerprint
from dsmoe_core.training.teacher import Teacher, check_teacher, shared_columns, teacher_hash

from .conftest import Learner, freeze_statistics

DENSE = SMALL.model_copy(update={"experts": 6, "top_k": 6, "width": 48})
"""A teacher of another shape, whose experts are all active."""
WITHOUT_LABELS = LossWeights(
    quality=0,
    box=0,
    value_overlap=0,
    taxonomy=0,
    contrast=0,
    affinity=0,
    specialisation=0,
    misalignment=0,
    teacher_class=1,
    teacher_box=4,
)


def write_teacher(folder: Path, vocabulary: Vocabulary, config: ModelConfig = DENSE, **card: Any) -> Path:
    """Write a network with random weights as a model, with higher scores than those of a new network."""
    torch.manual_seed(7)
    network = build(config)
    texts = embed_vocabulary(vocabulary, HashEncoder())
    network.eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.startswith("head.") and not weight.dim():  # of the logits of each level
                weight.fill_(-1.0 if name.endswith("bias") else 1.0)
        network.encode_classes(texts.classes, texts.inner)
    save_model(folder, network, config, vocabulary, {"text_encoder": "hash", **card})
    return folder


@pytest.fixture
def teacher(tmp_path: Path, vocabulary: Vocabulary) -> Path:
    return write_teacher(tmp_path / "teacher", vocabulary)


def load(folder: Path, images: list[LabelledImage], vocabulary: Vocabulary) -> Teacher:
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    return Teacher.load(folder, [LabelledSet(images, vocabulary)], HashEncoder(), fabric)


def test_classes_are_matched_by_name() -> None:
    def book(*names: str) -> Vocabulary:
        return Vocabulary(tuple(ClassText(name, "") for name in names))

    columns = shared_columns(book("dent", "scratch", "rust", "hole"), book("rust", "dent"))
    assert columns.tolist() == [1, -1, 0, -1]
    assert columns.dtype == torch.long


def test_only_shared_and_active_classes_are_distilled(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary, learner: Learner
) -> None:
    """The class loss has a gradient in the columns of shared classes, and none in the others."""
    light = vocabulary.classes[1]
    book = Vocabulary((ClassText("crack", "a crack"), light))
    source = load(write_teacher(tmp_path / "t", book), images, vocabulary)
    counts = learner.objective._precompute_targets(encoding(learner), [learner.batch])[1]
    output = learner.objective._forward(encoding(learner), learner.batch, 1.0)
    pixels = torch.from_numpy(learner.batch.pixels)
    logits = [level.logits for level in output.levels]
    losses = source.losses(output, pixels, 0, torch.arange(2), counts, LossWeights())
    gradients = torch.autograd.grad(losses["teacher_class"], logits, retain_graph=True)
    assert all(gradient[:, 0].abs().max() == 0 for gradient in gradients), "dark"
    assert all(gradient[:, 1].abs().min() > 0 for gradient in gradients), "light"
    assert losses["teacher_box"] > 0
    one = output._replace(levels=[level._replace(logits=level.logits[:, :1]) for level in output.levels])
    nothing = source.losses(one, pixels, 0, torch.tensor([0]), counts, LossWeights())
    assert [loss.item() for loss in nothing.values()] == [0.0, 0.0]
    only = output._replace(levels=[level._replace(logits=level.logits[:, 1:]) for level in output.levels])
    same = source.losses(only, pixels, 0, torch.tensor([1]), counts, LossWeights())
    assert {name: loss.item() for name, loss in same.items()} == pytest.approx(
        {name: loss.item() for name, loss in losses.items()}
    )


def encoding(learner: Learner) -> Any:
    return learner.network.encode_classes(learner.texts.classes, learner.texts.inner)


def test_each_labelled_set_has_its_own_classes(
    teacher: Path, images: list[LabelledImage], vocabulary: Vocabulary, bars: LabelledSet, tmp_path: Path
) -> None:
    """Steps of a set that shares no class with the teacher have no loss towards it."""
    history: list[dict[str, float]] = []
    training = QUICK.model_copy(update={"images_seen": 10})
    train(
        tmp_path / "student",
        images,
        vocabulary,
        training=training,
        teacher=teacher,
        extra_sets=[bars],
        progress=lambda step, steps, losses: history.append(dict(losses)),
    )
    assert len(history) == 5
    assert all({"teacher_class", "teacher_box"} <= losses.keys() for losses in history)
    assert any(losses["teacher_class"] > 0 for losses in history)


def test_the_teacher_predicts_as_the_loaded_model_does(
    teacher: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    source = load(teacher, images, vocabulary)
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    network = load_model(teacher).network
    texts = embed_vocabulary(vocabulary, HashEncoder())
    before = {name: buffer.clone() for name, buffer in source._network.named_buffers()}
    with torch.no_grad():
        classes = network.encode_classes(texts.classes, texts.inner).conditioning
        expected = flatten_levels(network(pixels.permute(0, 3, 1, 2) / 255, classes, classes).levels)
    actual = source.predict(pixels)
    assert not actual.logits.requires_grad
    torch.testing.assert_close(actual.logits, expected.logits)
    torch.testing.assert_close(actual.boxes, expected.boxes)
    for name, buffer in source._network.named_buffers():
        assert torch.equal(buffer, before[name]), name


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_micro_batches_give_the_losses_and_gradients_of_the_whole_batch(
    micro_batch: int, teacher: Path, images: list[LabelledImage], vocabulary: Vocabulary, learner: Learner
) -> None:
    learner = learner.with_additive_losses()
    freeze_statistics(learner.network)
    taught = learner._replace(objective=replace(learner.objective, teacher=load(teacher, images, vocabulary)))
    losses, gradients = taught.gradients(6)
    parts, part_gradients = taught.gradients(micro_batch)
    assert losses["teacher_class"] > 0 < losses["teacher_box"]
    for name, loss in losses.items():
        assert parts[name] == pytest.approx(loss, rel=1e-4, abs=1e-7), name
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        assert float((part_gradients[name] - gradient).abs().max()) < 1e-4 * largest, name
    alone, _ = learner.gradients(6)
    assert {name: losses[name] for name in alone} == pytest.approx(alone)


def distance(model: Path, teacher: Path, images: list[LabelledImage], vocabulary: Vocabulary) -> float:
    """Mean absolute difference of the class probabilities of two models on the images."""
    pixels = torch.from_numpy(
        TrainingSet(images, vocabulary, LetterboxReader(64), QUICK.model_copy(update={"zoom": 0}))
        .batch(0)
        .pixels
    )
    first, second = (load(folder, images, vocabulary).predict(pixels) for folder in (model, teacher))
    return float((first.logits.sigmoid() - second.logits.sigmoid()).abs().mean())


@pytest.mark.slow
def test_a_student_gets_nearer_to_the_teacher_than_without_it(
    tmp_path: Path, teacher: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    changes = {"images_seen": 180, "batch": 6, "ema": 0.5, "learning_rate": 0.005, "matrix_rate": 0.0}
    training = QUICK.model_copy(update=changes)
    taught_only = training.model_copy(update={"losses": WITHOUT_LABELS})
    train(tmp_path / "labels", images, vocabulary, training=training)
    heavy = LossWeights(teacher_class=30.0, teacher_box=120.0)
    taught = training.model_copy(update={"losses": heavy})
    train(tmp_path / "both", images, vocabulary, training=taught, teacher=teacher)
    train(tmp_path / "only", images, vocabulary, training=taught_only, teacher=teacher)
    labels, both, only = (
        distance(tmp_path / name, teacher, images, vocabulary) for name in ("labels", "both", "only")
    )
    assert both < 0.9 * labels, (labels, both, only)
    assert only < 0.9 * labels, (labels, both, only)


def test_a_run_with_a_teacher_resumes_to_the_same_weights(
    tmp_path: Path, teacher: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    whole = train(tmp_path / "whole", images, vocabulary, teacher=teacher)
    for step in (2, 5):
        with pytest.raises(Killed):
            train(tmp_path / "cut", images, vocabulary, teacher=teacher, kill_at=step)
    cut = train(tmp_path / "cut", images, vocabulary, teacher=teacher)
    assert (cut.steps, cut.losses) == (whole.steps, whole.losses)
    assert {"teacher_class", "teacher_box"} <= cut.losses.keys()
    first, second = (read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("whole", "cut"))
    assert [name for name, tensor in first.items() if not torch.equal(tensor, second[name])] == []


def test_the_fingerprint_depends_on_the_weights_and_the_classes_of_the_teacher(
    tmp_path: Path, teacher: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    def of(folder: Path | None) -> str:
        return fingerprint([LabelledSet(images, vocabulary)], SMALL, QUICK, None, "hash", folder)

    copy = write_teacher(tmp_path / "copy", vocabulary, seconds=3.0)
    renamed = write_teacher(tmp_path / "renamed", Vocabulary((vocabulary.classes[0],), vocabulary.inner))
    other = write_teacher(tmp_path / "other", vocabulary, SMALL)
    assert of(copy) == of(teacher)
    assert len({of(None), of(teacher), of(renamed), of(other)}) == 4
    (other / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=WEIGHTS):
        teacher_hash(other)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"head_strides": (4, 8)}, r"head_strides \(4, 8\).*\(8, 16\)"),
        ({"image_px": 128}, "image_px 128.*64"),
        ({"preprocessing": Preprocessing(gamma=1.5)}, "preprocessing .*1.5"),
    ],
)
def test_a_teacher_with_other_cells_or_pixels_is_refused(
    change: dict[str, Any], named: str, tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    other = write_teacher(tmp_path / "t", vocabulary, DENSE.model_copy(update=change))
    with pytest.raises(ModelError, match=named) as raised:
        train(tmp_path / "student", images, vocabulary, teacher=other)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "student").exists()


def test_a_teacher_without_a_shared_class_or_of_another_text_encoder_is_refused(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    stranger = write_teacher(tmp_path / "a", Vocabulary((ClassText("crack", "a crack"),)))
    with pytest.raises(ModelError, match=r"dark, light.*crack"):
        check_teacher(stranger, SMALL, [LabelledSet(images, vocabulary)])
    other = write_teacher(tmp_path / "b", vocabulary, text_encoder="words")
    with pytest.raises(ModelError, match="text encoder words"):
        train(tmp_path / "student", images, vocabulary, teacher=other)
    (other / CARD).unlink()
    with pytest.raises(ModelError, match="complete model"):
        train(tmp_path / "student", images, vocabulary, teacher=other)
