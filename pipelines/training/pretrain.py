"""Makes a warm start: first weights for the image encoder, from drawn pictures and from some without labels.

Pictures of the user come first, masked (``dsmoe_core/warm_start/simmim.py``); then the detector is trained on
drawn boards, lids and bottles, with all their boxes and words, as BEiT's intermediate fine-tuning (Bao et
al., ICLR 2022) comes between learning without labels and the task. What the encoder has become is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from dsmoe_core.atomic import content_id
from dsmoe_core.config import DrawnKind, Frozen, ModelConfig, TrainingConfig
from dsmoe_core.data.formats import read_annotations
from dsmoe_core.data.image_folder import ingest_folder
from dsmoe_core.data.synthetic import KINDS, generator_version, write_set
from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import DataError, DsmoeError
from dsmoe_core.schema import LabelledPicture, Picture, Vocabulary
from pipelines.detectors.backend import DSMoEDetection, asked, judge
from pipelines.settings import MAX_PIXELS
from pipelines.workspace.registry import source_commit
from prompts.class_book import ClassBook

SHARD = 200  # pictures that are drawn at a time: what a kill loses at most
HELD_OUT = 40  # pictures of each kind
_SEEDS = 10_000  # shards of one seed, so that those of two seeds share no picture
_OURS = "Apache-2.0"
_YOURS = "that of the pictures it was trained on, which are not ours; the drawn ones are Apache-2.0"


class Plan(Frozen):
    """What to learn from, and for how long."""

    size: Literal["nano", "base"] = "nano"
    px: int = Field(320, ge=64, multiple_of=32, description="side of the pictures")
    drawn: int = Field(6000, ge=0, description="pictures to draw, a third of each kind; 0: none")
    pictures: int = Field(48_000, ge=1, description="pictures shown in each part of the training")
    seed: int = Field(42, ge=0)

    @property
    def model(self) -> ModelConfig:
        return ModelConfig.of_size(self.size).model_copy(update={"image_px": self.px})

    @property
    def training(self) -> TrainingConfig:
        return TrainingConfig(pictures_seen=self.pictures, seed=self.seed)


class Watch(Protocol):
    """Is told what is being done."""

    def say(self, text: str) -> None: ...

    def advance(self, done: int, total: int, note: str = "") -> None: ...


def pretrain(
    plan: Plan, images: Path | None, out: Path, work: Path, watch: Watch
) -> tuple[dict[str, Any], bool]:
    """Make ``out`` and its card, or find that it was made by the same plan; the card, and whether new.

    Killed and called again with the same arguments, it goes on.

    Args:
        images: folder of pictures without labels.
        work: where drawn pictures and unfinished trainings are kept; may be deleted afterwards.

    Raises:
        DataError: there is nothing to learn from.
    """
    from dsmoe_core.warm_start.checkpoint import read_card, save_warm_start

    pictures = _taken_in(images, work, watch)
    if not plan.drawn and not pictures:
        raise DataError("there is no picture to learn from", "Draw some, or name a folder with --images.")
    made = _recipe(plan, pictures)
    made |= {"plan": content_id(made), "commit": source_commit()}
    try:
        card = read_card(out)
        if card.made.get("plan") == made["plan"]:
            return card.model_dump(), False
    except DsmoeError:
        pass  # none is there, or another
    folder = work / made["plan"]
    first = folder / "masked.safetensors" if pictures else None
    keep = partial(save_warm_start, size=plan.size, licence=_YOURS if pictures else _OURS)
    if first is not None:
        network = _learn_masked(plan, pictures, folder, work, watch)
        keep(first, network, made=made)
    if plan.drawn:
        network, learned = _learn_drawn(plan, folder, work, first, watch)
        made |= learned
    return keep(out, network, made=made).model_dump(), True


def _taken_in(images: Path | None, work: Path, watch: Watch) -> tuple[Picture, ...]:
    if images is None:
        return ()
    watch.say("taking pictures in")
    taken = ingest_folder(images, work / "pictures", max_pixels=MAX_PIXELS, progress=watch.advance)
    if not taken.pictures:
        raise DataError(f"{images} holds no picture that can be read", "Name a folder with pictures.")
    return taken.pictures


def _recipe(plan: Plan, pictures: tuple[Picture, ...]) -> dict[str, Any]:
    """Everything that decides what comes out, for the card: no names and no paths of the user's."""
    recipe: dict[str, Any] = {**plan.model_dump(), "model": plan.model.model_dump(mode="json")}
    recipe["training"] = plan.training.model_dump(mode="json")
    if pictures:
        recipe["unlabelled"] = {
            "recipe": "SimMIM",
            "pictures": len(pictures),
            "content": content_id(sorted(picture.key for picture in pictures)),
        }
    if plan.drawn:
        recipe["generator"] = generator_version()
    return recipe


def _learn_masked(plan: Plan, pictures: tuple[Picture, ...], folder: Path, work: Path, watch: Watch) -> Any:
    from dsmoe_core.data.letterbox_cache import PictureCache
    from dsmoe_core.warm_start.simmim import fit_masked

    watch.say("learning from masked pictures")
    return fit_masked(
        pictures=pictures,
        model=plan.model,
        training=plan.training,
        out=folder / "masked",
        cache=PictureCache(work / "squares"),
        progress=lambda done, total, losses: watch.advance(done, total, _told(losses)),
    )


def _learn_drawn(
    plan: Plan, folder: Path, work: Path, first: Path | None, watch: Watch
) -> tuple[Any, dict[str, Any]]:
    """The trained network, and for the card how well it finds things on drawn pictures that it never saw."""
    from dsmoe_core.checkpoint import load_model
    from dsmoe_core.data.letterbox_cache import PictureCache

    pictures: list[LabelledPicture] = []
    held_out: dict[DrawnKind, list[LabelledPicture]] = {}
    for kind in KINDS:
        pictures += _draw(kind, ceil(plan.drawn / len(KINDS)), 0, plan, work, watch)
        held_out[kind] = _draw(kind, HELD_OUT, _SEEDS - 1, plan, work, watch)
    vocabulary, model = union_vocabulary(), folder / "model"
    cache = PictureCache(work / "squares")
    detection = DSMoEDetection(plan.model, work / "texts", encoder_from=first, pictures=cache)
    watch.say("learning from drawn pictures")
    summary = detection.fit(
        pictures=pictures,
        vocabulary=vocabulary,
        training=plan.training,
        out=model,
        start_from=None,
        progress=lambda done, total, losses: watch.advance(done, total, _told(losses)),
    )
    scores = {}
    for kind, truth in held_out.items():
        watch.say(f"looking at held-out pictures: {kind}")
        found = asked(detection, model, vocabulary, [t.picture for t in truth], watch.advance)
        judged = judge(found.values(), truth, vocabulary, f"held-out {kind}")
        scores[kind] = {"pictures": len(truth), "map50": round(judged.map50, 4), "map": round(judged.map, 4)}
    network = load_model(model).network
    learned = {"steps": summary["steps"], "seconds": round(summary["seconds"]), "losses": summary["losses"]}
    return network, {**learned, "text_encoder": summary["text_encoder"], "held_out": scores}


def union_vocabulary() -> Vocabulary:
    """The classes of all drawn kinds, in the words of the glossary."""
    names = (name for generator in KINDS.values() for name in generator.classes)
    return ClassBook.from_glossary(names).vocabulary()


def _draw(
    kind: DrawnKind, count: int, shard: int, plan: Plan, work: Path, watch: Watch
) -> list[LabelledPicture]:
    """So many pictures of a kind, from this shard on; shards that are there already are left alone."""
    watch.say(f"drawing pictures: {kind}")
    pictures: list[LabelledPicture] = []
    while len(pictures) < count:
        before, here = len(pictures), min(SHARD, count - len(pictures))
        name = f"{kind}-{plan.px}px-seed{plan.seed}-{shard:04d}-{here}"
        folder = work / "drawn" / generator_version() / name
        tell = partial(_told_of_part, watch, before, count)
        write_set(folder, kind, here, 0, seed=plan.seed * _SEEDS + shard, px=plan.px, progress=tell)
        pictures += _labelled(folder)
        shard += 1
    return pictures


def _told_of_part(watch: Watch, before: int, count: int, done: int, _total: int) -> None:
    watch.advance(before + done, count)


def _labelled(folder: Path) -> list[LabelledPicture]:
    images = folder / "images"
    return [
        LabelledPicture(_picture(images / p.name, p.width, p.height), p.annotations)
        for p in read_annotations(folder / "train.json", images).pictures
    ]


def _picture(path: Path, width: int, height: int) -> Picture:
    return Picture(sha256_of(path), path.name, path, width, height)


def _told(losses: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in losses.items())
