"""Makes a warm start: first weights for the image encoder, from drawn images and from some without labels.

Images of the user come first, masked (``dsmoe_core/warm_start/simmim.py``); then the detector is trained on
drawn boards, lids and bottles, with all their boxes and words, as BEiT's intermediate fine-tuning (Bao et
al., ICLR 2022) comes between learning without labels and the task. What the encoder has become is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dsmoe_core.config import Frozen, ModelConfig, SyntheticKind, TrainingConfig
from dsmoe_core.data.formats import read_annotations
from dsmoe_core.data.image_folder import ingest_folder
from dsmoe_core.data.synthetic import GENERATORS, generator_version, write_synthetic_set
from dsmoe_core.digest import content_id, sha256_of
from dsmoe_core.errors import DataError, DsmoeError
from dsmoe_core.schema import ImageRecord, LabelledImage, Vocabulary
from pipelines.detectors.backend import evaluate_predictions, predict_all
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.progress import ProgressReporter
from pipelines.settings import MAX_PIXELS
from pipelines.workspace.registry import source_commit
from prompts.glossary import glossary_book

SHARD_IMAGES = 200  # images that are drawn at a time: what a kill loses at most
HELD_OUT = 40  # images of each kind
_SEEDS = 10_000  # shards of one seed, so that those of two seeds share no image
_OURS = "Apache-2.0"
_YOURS = "that of the images it was trained on, which are not ours; the drawn ones are Apache-2.0"


class WarmStartPlan(Frozen):
    """What to learn from, and for how long."""

    size: Literal["nano", "base"] = "nano"
    px: int = Field(320, ge=64, multiple_of=32, description="side of the images")
    synthetic: int = Field(6000, ge=0, description="synthetic images to make, a third of each kind; 0: none")
    images_seen: int = Field(48_000, ge=1, description="images shown in each part of the training")
    seed: int = Field(42, ge=0)

    @property
    def model(self) -> ModelConfig:
        return ModelConfig.of_size(self.size).model_copy(update={"image_px": self.px})

    @property
    def training(self) -> TrainingConfig:
        return TrainingConfig(images_seen=self.images_seen, seed=self.seed)


def pretrain(
    plan: WarmStartPlan, images: Path | None, out: Path, work: Path, progress: ProgressReporter
) -> tuple[dict[str, Any], bool]:
    """Make ``out`` and its card, or find that it was made by the same plan; the card, and whether new.

    Killed and called again with the same arguments, it goes on.

    Args:
        images: folder of images without labels.
        work: where drawn images and unfinished trainings are kept; may be deleted afterwards.

    Raises:
        DataError: there is nothing to learn from.
    """
    from dsmoe_core.warm_start.checkpoint import read_card, save_warm_start

    ingested = _taken_in(images, work, progress)
    if not plan.synthetic and not ingested:
        raise DataError("there is no image to learn from", "Draw some, or name a folder with --images.")
    made = _recipe(plan, ingested)
    made |= {"plan": content_id(made), "commit": source_commit()}
    try:
        card = read_card(out)
        if card.made.get("plan") == made["plan"]:
            return card.model_dump(), False
    except DsmoeError:
        pass  # none is there, or another
    folder = work / made["plan"]
    first = folder / "masked.safetensors" if ingested else None
    keep = partial(save_warm_start, size=plan.size, licence=_YOURS if ingested else _OURS)
    if first is not None:
        network = _learn_masked(plan, ingested, folder, work, progress)
        keep(first, network, made=made)
    if plan.synthetic:
        network, learned = _learn_drawn(plan, folder, work, first, progress)
        made |= learned
    return keep(out, network, made=made).model_dump(), True


def _taken_in(images: Path | None, work: Path, progress: ProgressReporter) -> tuple[ImageRecord, ...]:
    if images is None:
        return ()
    progress.status("taking images in")
    taken = ingest_folder(images, work / "images", max_pixels=MAX_PIXELS, progress=progress.advance)
    if not taken.images:
        raise DataError(f"{images} holds no image that can be read", "Name a folder with images.")
    return taken.images


def _recipe(plan: WarmStartPlan, images: tuple[ImageRecord, ...]) -> dict[str, Any]:
    """Everything that decides what comes out, for the card: no names and no paths of the user's."""
    recipe: dict[str, Any] = {**plan.model_dump(), "model": plan.model.model_dump(mode="json")}
    recipe["training"] = plan.training.model_dump(mode="json")
    if images:
        recipe["unlabelled"] = {
            "recipe": "SimMIM",
            "images": len(images),
            "content": content_id(sorted(image.key for image in images)),
        }
    if plan.synthetic:
        recipe["generator"] = generator_version()
    return recipe


def _learn_masked(
    plan: WarmStartPlan, images: tuple[ImageRecord, ...], folder: Path, work: Path, progress: ProgressReporter
) -> Any:
    from dsmoe_core.data.letterbox_cache import CacheConfig
    from dsmoe_core.warm_start.simmim import fit_simmim

    progress.status("learning from masked images")
    return fit_simmim(
        images=images,
        model=plan.model,
        training=plan.training,
        out=folder / "masked",
        cache=CacheConfig(work / "squares"),
        progress=lambda done, total, losses: progress.advance(done, total, _told(losses)),
    )


def _learn_drawn(
    plan: WarmStartPlan, folder: Path, work: Path, first: Path | None, progress: ProgressReporter
) -> tuple[Any, dict[str, Any]]:
    """The trained network, and for the card how well it finds things on drawn images that it never saw."""
    from dsmoe_core.checkpoint import load_model
    from dsmoe_core.data.letterbox_cache import CacheConfig

    images: list[LabelledImage] = []
    held_out: dict[SyntheticKind, list[LabelledImage]] = {}
    for kind in GENERATORS:
        images += _draw(kind, ceil(plan.synthetic / len(GENERATORS)), 0, plan, work, progress)
        held_out[kind] = _draw(kind, HELD_OUT, _SEEDS - 1, plan, work, progress)
    vocabulary, model = synthetic_vocabulary(), folder / "model"
    cache = CacheConfig(work / "squares")
    detector = DSMoEBackend(plan.model, work / "texts", encoder_from=first, images=cache)
    progress.status("learning from drawn images")
    summary = detector.fit(
        images=images,
        vocabulary=vocabulary,
        training=plan.training,
        out=model,
        start_from=None,
        progress=lambda done, total, losses: progress.advance(done, total, _told(losses)),
    )
    scores = {}
    for kind, truth in held_out.items():
        progress.status(f"looking at held-out images: {kind}")
        found = predict_all(detector, model, vocabulary, [t.image for t in truth], progress.advance)
        judged = evaluate_predictions(found.values(), truth, vocabulary, f"held-out {kind}")
        scores[kind] = {"images": len(truth), "map50": round(judged.map50, 4), "map": round(judged.map, 4)}
    network = load_model(model).network
    learned = {"steps": summary["steps"], "seconds": round(summary["seconds"]), "losses": summary["losses"]}
    return network, {**learned, "text_encoder": summary["text_encoder"], "held_out": scores}


def synthetic_vocabulary() -> Vocabulary:
    """The classes of all drawn kinds, in the words of the glossary."""
    names = (name for generator in GENERATORS.values() for name in generator.classes)
    return glossary_book(names).vocabulary()


def _draw(
    kind: SyntheticKind, count: int, shard: int, plan: WarmStartPlan, work: Path, progress: ProgressReporter
) -> list[LabelledImage]:
    """So many images of a kind, from this shard on; shards that are there already are left alone."""
    progress.status(f"drawing images: {kind}")
    images: list[LabelledImage] = []
    while len(images) < count:
        before, here = len(images), min(SHARD_IMAGES, count - len(images))
        name = f"{kind}-{plan.px}px-seed{plan.seed}-{shard:04d}-{here}"
        folder = work / "drawn" / generator_version() / name
        tell = partial(_advance_part, progress, before, count)
        write_synthetic_set(folder, kind, here, 0, seed=plan.seed * _SEEDS + shard, px=plan.px, progress=tell)
        images += _labelled(folder)
        shard += 1
    return images


def _advance_part(progress: ProgressReporter, before: int, count: int, done: int, _total: int) -> None:
    progress.advance(before + done, count)


def _labelled(folder: Path) -> list[LabelledImage]:
    images = folder / "images"
    return [
        LabelledImage(_image(images / p.name, p.width, p.height), p.annotations)
        for p in read_annotations(folder / "train.json", images).images
    ]


def _image(path: Path, width: int, height: int) -> ImageRecord:
    return ImageRecord(sha256_of(path), path.name, path, width, height)


def _told(losses: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in losses.items())
