"""Makes a warm start: initial weights of the image encoder, from synthetic and from unlabelled images.

Part one, optional: masked image modelling (``dsmoe_core/warm_start/simmim.py``) or feature distillation
(``dsmoe_core/warm_start/feature_distillation.py``) on unlabelled images, of a folder or of a workspace. Part
two: supervised training of the whole detector on synthetic boards, lids and bottles, like the intermediate
fine-tuning of BEiT (Bao et al., ICLR 2022). The weights of the image encoder are then saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dsmoe_core.config import Frozen, ModelConfig, SyntheticKind, Tiles, TrainingConfig
from dsmoe_core.data.formats import read_annotations
from dsmoe_core.data.image_folder import ingest_folder
from dsmoe_core.data.synthetic import GENERATORS, generator_version, write_synthetic_set
from dsmoe_core.digest import content_id, sha256_of
from dsmoe_core.errors import DataError, DsmoeError, PrerequisiteError, SettingsError
from dsmoe_core.schema import ImageRecord, LabelledImage, Vocabulary
from dsmoe_core.tiling import image_views
from pipelines.detectors.backend import evaluate_predictions, predict_all
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.progress import ProgressReporter, format_losses
from pipelines.settings.workspace import MAX_PIXELS
from pipelines.workspace.registry import source_commit
from prompts.glossary import glossary_book

if TYPE_CHECKING:
    from dsmoe_core.data.letterbox_cache import CacheConfig

SHARD_IMAGES = 200  # synthetic images in one folder; a killed run loses at most one folder
HELD_OUT = 40  # synthetic images of each kind, for evaluation
_SHARDS_PER_SEED = 10_000  # so that two seeds share no shard
Objective = Literal["masked", "distill"]
RECIPES: dict[Objective, str] = {"masked": "SimMIM", "distill": "features of EfficientNet-Lite0"}
_LICENCE = "Apache-2.0"
USER_IMAGES_LICENCE = "that of the user's training images; the synthetic images are Apache-2.0"


class WarmStartPlan(Frozen):
    """Data and length of a pre-training."""

    size: Literal["nano", "base"] = "nano"
    px: int = Field(320, ge=64, multiple_of=32, description="side of the images")
    synthetic: int = Field(6000, ge=0, description="synthetic images to make, a third of each kind; 0: none")
    images_seen: int = Field(48_000, ge=1, description="images shown in each part of the training")
    minutes: float | None = Field(
        None, gt=0, description="time for the part on unlabelled images; none: images_seen is its length"
    )
    objective: Objective = Field("masked", description="what is learned from unlabelled images")
    seed: int = Field(42, ge=0)

    @property
    def model(self) -> ModelConfig:
        """The network whose image encoder is trained."""
        return ModelConfig.of_size(self.size).model_copy(update={"image_px": self.px})

    @property
    def training(self) -> TrainingConfig:
        """Settings of the training on synthetic images."""
        return TrainingConfig(images_seen=self.images_seen, seed=self.seed)

    @property
    def unlabelled_training(self) -> TrainingConfig:
        """Settings of the training on unlabelled images."""
        return self.training.model_copy(update={"minutes": self.minutes})


def pretrain(
    plan: WarmStartPlan,
    images: Path | None,
    out: Path,
    work: Path,
    progress: ProgressReporter,
    teacher: Path | None = None,
) -> tuple[dict[str, Any], bool]:
    """Write the warm start ``out`` and its card, unless the same plan has made them already.

    An interrupted call with the same arguments is resumed.

    Args:
        plan: data and length.
        images: folder of unlabelled images; None for synthetic images only.
        out: file to write, ``*.safetensors``.
        work: folder for synthetic images and unfinished trainings; may be deleted afterwards.
        progress: progress reporter.
        teacher: file of the weights that the objective ``distill`` learns from.

    Returns:
        The content of the card, and whether the file was written now.

    Raises:
        DataError: there are neither synthetic nor unlabelled images.
        SettingsError: the plan has minutes or an objective for unlabelled images, and there are none.
        PrerequisiteError: the objective is ``distill``, and no teacher is given.
    """
    from dsmoe_core.data.letterbox_cache import CacheConfig
    from dsmoe_core.warm_start.checkpoint import read_card, save_warm_start

    _check_data(plan, images)
    unlabelled, intensity_max = _ingest(images, work, progress)
    provenance = _provenance(plan, unlabelled, intensity_max)
    provenance |= {"plan": content_id(provenance), "commit": source_commit()}
    try:
        card = read_card(out)
        if card.made.get("plan") == provenance["plan"]:
            return card.model_dump(), False
    except DsmoeError:
        pass  # no warm start, or a damaged one
    folder = work / provenance["plan"]
    encoder_from = folder / f"{plan.objective}.safetensors" if unlabelled else None
    save = partial(save_warm_start, size=plan.size, licence=USER_IMAGES_LICENCE if unlabelled else _LICENCE)
    if encoder_from is not None:
        network = train_unlabelled(
            plan.objective,
            unlabelled,
            model=plan.model,
            training=plan.unlabelled_training,
            folder=folder,
            cache=CacheConfig(work / ("squares" if intensity_max is None else f"squares-{intensity_max}")),
            progress=progress,
            teacher=teacher,
        )
        save(encoder_from, network, made=provenance)
    if plan.synthetic:
        network, results = _train_synthetic(plan, folder, work, encoder_from, progress)
        provenance |= results
    return save(out, network, made=provenance).model_dump(), True


def _check_data(plan: WarmStartPlan, images: Path | None) -> None:
    """Refuse a plan that needs unlabelled images if there are none.

    Raises:
        DataError: there are no synthetic images either.
        SettingsError: minutes, or another objective than the default, are given.
    """
    if images is not None:
        return
    if not plan.synthetic:
        raise DataError("there are no training images", "Set --synthetic above 0, or give --images.")
    if plan.minutes is not None or plan.objective != "masked":
        raise SettingsError(
            f"minutes is {plan.minutes} and objective is {plan.objective}, but there are no unlabelled "
            "images to train on",
            "Give a folder with --images, or leave out --minutes and --objective.",
        )


def _ingest(
    images: Path | None, work: Path, progress: ProgressReporter
) -> tuple[tuple[ImageRecord, ...], int | None]:
    """The user's images, and the value that is white in those of more than 8 bits."""
    if images is None:
        return (), None
    progress.status("importing images")
    ingested = ingest_folder(images, work / "images", max_pixels=MAX_PIXELS, progress=progress.advance)
    if not ingested.images:
        raise DataError(f"{images} contains no readable image", "Give a folder with images.")
    return ingested.images, ingested.scale.intensity_max if ingested.scale else None


def _provenance(
    plan: WarmStartPlan, images: tuple[ImageRecord, ...], intensity_max: int | None
) -> dict[str, Any]:
    """All inputs that determine the result, for the card; without names and paths of the user."""
    provenance: dict[str, Any] = {**plan.model_dump(), "model": plan.model.model_dump(mode="json")}
    provenance["training"] = plan.training.model_dump(mode="json")
    if images:
        provenance["unlabelled"] = unlabelled_provenance(plan.objective, images, intensity_max)
    if plan.synthetic:
        provenance["generator"] = generator_version()
    return provenance


def unlabelled_provenance(
    objective: Objective,
    images: Sequence[ImageRecord],
    intensity_max: int | None,
    tiles: Tiles | None = None,
) -> dict[str, Any]:
    """Objective and images of a training on unlabelled images, for the card.

    Args:
        tiles: how the images are cut; then the card has the number of ``views``, too.
    """
    provenance: dict[str, Any] = {
        "recipe": RECIPES[objective],
        "images": len(images),
        "content": content_id(sorted(image.key for image in images)),
        "intensity_max": intensity_max,
    }
    if tiles is not None:
        provenance["views"] = sum(len(image_views(image, tiles)) for image in images)
    return provenance


def train_unlabelled(
    objective: Objective,
    images: Sequence[ImageRecord],
    *,
    model: ModelConfig,
    training: TrainingConfig,
    folder: Path,
    cache: CacheConfig | None,
    progress: ProgressReporter,
    teacher: Path | None,
    encoder_from: Path | None = None,
) -> Any:
    """Train the image encoder on unlabelled images; an interrupted training is resumed.

    Args:
        folder: of the checkpoint.
        cache: cache of letterboxed images; None: they are kept in memory.
        teacher: file of the weights that the objective ``distill`` learns from; ``masked`` needs none.
        encoder_from: file of the initial weights; None: random weights.

    Returns:
        The network with the trained image encoder.

    Raises:
        PrerequisiteError: the objective is ``distill``, and no teacher is given.
    """
    from dsmoe_core.warm_start.feature_distillation import FeatureDistillation
    from dsmoe_core.warm_start.pretraining import PretrainingObjective, pretrain_encoder
    from dsmoe_core.warm_start.simmim import MaskedImages

    progress.status(f"training on unlabelled images ({RECIPES[objective]})")

    def make_objective(network: Any) -> PretrainingObjective:
        if objective == "masked":
            return MaskedImages(network, model, training.seed)
        if teacher is None:
            raise PrerequisiteError(
                "the objective is distill, and the weights of EfficientNet-Lite0 to learn from are not given",
                "Install them with `dsmoe weights imagenet-lite`, and pass their file.",
            )
        return FeatureDistillation(network, model, teacher)

    return pretrain_encoder(
        make_objective,
        images=images,
        model=model,
        training=training,
        out=folder / objective,
        encoder_from=encoder_from,
        cache=cache,
        progress=lambda done, total, losses: progress.advance(done, total, format_losses(losses)),
    )


def _train_synthetic(
    plan: WarmStartPlan, folder: Path, work: Path, encoder_from: Path | None, progress: ProgressReporter
) -> tuple[Any, dict[str, Any]]:
    """Train on synthetic images and evaluate on held-out ones.

    Returns:
        The network, and for the card the course of the training and the metrics on the held-out images.
    """
    from dsmoe_core.checkpoint import load_model
    from dsmoe_core.data.letterbox_cache import CacheConfig

    images: list[LabelledImage] = []
    held_out: dict[SyntheticKind, list[LabelledImage]] = {}
    for kind in GENERATORS:
        images += _synthesize(kind, ceil(plan.synthetic / len(GENERATORS)), 0, plan, work, progress)
        held_out[kind] = _synthesize(kind, HELD_OUT, _SHARDS_PER_SEED - 1, plan, work, progress)
    vocabulary, model = synthetic_vocabulary(), folder / "model"
    cache = CacheConfig(work / "squares")
    detector = DSMoEBackend(plan.model, work / "texts", encoder_from=encoder_from, images=cache)
    progress.status("training on synthetic images")
    summary = detector.fit(
        images=images,
        vocabulary=vocabulary,
        training=plan.training,
        out=model,
        start_from=None,
        progress=lambda done, total, losses: progress.advance(done, total, format_losses(losses)),
    )
    metrics = {}
    for kind, truth in held_out.items():
        progress.status(f"evaluating on held-out images: {kind}")
        predictions = predict_all(detector, model, vocabulary, [t.image for t in truth], progress.advance)
        evaluation = evaluate_predictions(predictions.values(), truth, vocabulary, f"held-out {kind}")
        map50, map_ = round(evaluation.map50, 4), round(evaluation.map, 4)
        metrics[kind] = {"images": len(truth), "map50": map50, "map": map_}
    network = load_model(model).network
    course = {"steps": summary["steps"], "seconds": round(summary["seconds"]), "losses": summary["losses"]}
    return network, {**course, "text_encoder": summary["text_encoder"], "held_out": metrics}


def synthetic_vocabulary() -> Vocabulary:
    """The classes of all synthetic kinds with the descriptions of the glossary."""
    names = (name for generator in GENERATORS.values() for name in generator.classes)
    return glossary_book(names).vocabulary()


def _synthesize(
    kind: SyntheticKind, count: int, shard: int, plan: WarmStartPlan, work: Path, progress: ProgressReporter
) -> list[LabelledImage]:
    """Synthetic images of one kind, made in shards; existing shards are reused.

    Args:
        kind: of the images.
        count: number of images.
        shard: number of the first shard, which determines its random seed.
        plan: size of the images and seed.
        work: folder for the shards.
        progress: progress reporter.
    """
    progress.status(f"making synthetic images: {kind}")
    images: list[LabelledImage] = []
    while len(images) < count:
        done, shard_size = len(images), min(SHARD_IMAGES, count - len(images))
        name = f"{kind}-{plan.px}px-seed{plan.seed}-{shard:04d}-{shard_size}"
        folder = work / "synthetic" / generator_version() / name
        report = partial(_advance_shard, progress, done, count)
        seed = plan.seed * _SHARDS_PER_SEED + shard
        write_synthetic_set(folder, kind, shard_size, 0, seed=seed, px=plan.px, progress=report)
        images += _read_labelled(folder)
        shard += 1
    return images


def _advance_shard(progress: ProgressReporter, offset: int, count: int, done: int, _total: int) -> None:
    progress.advance(offset + done, count)


def _read_labelled(folder: Path) -> list[LabelledImage]:
    images = folder / "images"
    return [
        LabelledImage(_image(images / p.name, p.width, p.height), p.annotations)
        for p in read_annotations(folder / "train.json", images).images
    ]


def _image(path: Path, width: int, height: int) -> ImageRecord:
    return ImageRecord(sha256_of(path), path.name, path, width, height)
