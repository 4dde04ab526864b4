"""Command `dsmoe pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import SeedOption, Size, SizeOption, output_file, output_folder
from pipelines.cli.terminal import TerminalReporter, line


def pretrain(
    out: Annotated[
        Path, typer.Argument(metavar="FILE.safetensors", help="File to write.", callback=output_file)
    ],
    size: SizeOption = Size.NANO,
    px: Annotated[int, typer.Option("--px", help="Side of the images in pixels, a multiple of 32.")] = 320,
    synthetic: Annotated[
        int,
        typer.Option("--synthetic", min=0, help="Number of synthetic images, a third of each kind; 0: none."),
    ] = 6000,
    images_seen: Annotated[
        int,
        typer.Option(
            "--images-seen",
            min=1,
            help="Length of each part of the training, in images shown to the network.",
        ),
    ] = 48_000,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Folder of unlabelled images to train on first."),
    ] = None,
    seed: SeedOption = 42,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            metavar="DIR",
            help="Folder of intermediate results; default: in the user's cache.",
            callback=output_folder,
        ),
    ] = None,
) -> None:
    """Make a warm start: initial weights of the image encoder. An interrupted run is resumed.

    Trains a detector on synthetic boards, lids and bottles. With --images, first trains by masked image
    modelling on your images.

    Example: `dsmoe pretrain mine.safetensors --images photos --images-seen 20000`
    """
    import platformdirs

    from dsmoe_core.atomic import disk_full_as_error
    from dsmoe_core.errors import SettingsError
    from pipelines.settings.validation import validate_settings
    from pipelines.training.pretrain import WarmStartPlan
    from pipelines.training.pretrain import pretrain as run_pretraining

    if out.suffix != ".safetensors":
        raise SettingsError(
            f"the file is {out}; expected a name that ends in .safetensors", "Change the name."
        )
    raw = {"size": size.value, "px": px, "synthetic": synthetic, "images_seen": images_seen, "seed": seed}
    plan = validate_settings(WarmStartPlan, raw, "the command line")
    work = work or platformdirs.user_cache_path("dsmoe") / "pretrain"
    with TerminalReporter() as progress, disk_full_as_error(work):
        card, written = run_pretraining(plan, images, out, work, progress)
    _print_metrics(card)
    line(f"{out} and its card {'are written' if written else 'exist already'}")


def _print_metrics(card: dict[str, Any]) -> None:
    for kind, metrics in card["made"].get("held_out", {}).items():
        line(
            f"{kind}: mAP@.5 {metrics['map50']:.3f}, mAP@.5:.95 {metrics['map']:.3f} "
            f"on {metrics['images']} held-out synthetic images"
        )
