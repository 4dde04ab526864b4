"""dsmoe pretrain"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import Size, SizeOption
from pipelines.cli.terminal import TerminalReporter, line


def pretrain(
    out: Annotated[Path, typer.Argument(metavar="FILE.safetensors", help="The warm start to make.")],
    size: SizeOption = Size.NANO,
    px: Annotated[int, typer.Option("--px", help="Side of the images, a multiple of 32.")] = 320,
    synthetic: Annotated[
        int,
        typer.Option("--synthetic", min=0, help="Synthetic images to make, a third of each kind; 0: none."),
    ] = 6000,
    images_seen: Annotated[
        int, typer.Option("--images-seen", min=1, help="Images shown in each part of the training.")
    ] = 48_000,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Learn from these images first; they need no labels."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of drawing and training.")] = 42,
    work: Annotated[
        Path | None,
        typer.Option("--work", metavar="DIR", help="For unfinished work; default: in the user's cache."),
    ] = None,
) -> None:
    """Make a warm start: first weights for the image encoder. Interrupted, the same command goes on.

    It learns to find what is on boards, lids and bottles that it draws itself; with --images it first learns
    to paint masked parts of images of yours.

    Example: `dsmoe pretrain mine.safetensors --images photos --images-seen 20000`
    """
    import platformdirs

    from dsmoe_core.atomic import disk_full_as_error
    from dsmoe_core.errors import SettingsError
    from pipelines.settings import validate_settings
    from pipelines.training.pretrain import WarmStartPlan
    from pipelines.training.pretrain import pretrain as make

    if out.suffix != ".safetensors":
        raise SettingsError(f"the file is {out}; expected a name that ends in .safetensors", "Name one.")
    raw = {"size": size.value, "px": px, "synthetic": synthetic, "images_seen": images_seen, "seed": seed}
    plan = validate_settings(WarmStartPlan, raw, "the command line")
    work = work or platformdirs.user_cache_path("dsmoe") / "pretrain"
    with TerminalReporter() as progress, disk_full_as_error(work):
        card, new = make(plan, images, out, work, progress)
    _tell(card)
    line(f"{out} and its card are {'written' if new else 'there already'}")


def _tell(card: dict[str, Any]) -> None:
    for kind, scores in card["made"].get("held_out", {}).items():
        line(
            f"{kind}: mAP@.5 {scores['map50']:.3f}, mAP@.5:.95 {scores['map']:.3f} "
            f"on {scores['images']} drawn images held out"
        )
