"""What the terminal shows about imported images: intensity scale, duplicates, files that were left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.cli.terminal import line

if TYPE_CHECKING:
    from collections.abc import Collection

    from dsmoe_core.data.image_folder import IngestResult
    from dsmoe_core.data.intensity_scale import IntensityScale

MAX_NAMED = 10


def show_images(ingest: IngestResult) -> None:
    """Print which files of a folder were left out or converted in a way that loses something."""
    if ingest.unreadable:
        count = len(ingest.unreadable)
        line(f"{count} files cannot be used as images; quarantine.json has the reason of each:", "yellow")
        for name, reason in list(ingest.unreadable.items())[:MAX_NAMED]:
            line(f"  {name}: {reason}", "yellow")
        if count > MAX_NAMED:
            line(f"  and {count - MAX_NAMED} more", "yellow")
    if ingest.duplicates:
        pairs = [f"{name} (same as {first})" for name, first in ingest.duplicates.items()]
        line(f"{len(pairs)} files have the same content as an image before: {named(pairs)}", "yellow")
    if ingest.frames:
        files = [f"{name} ({frames})" for name, frames in ingest.frames.items()]
        line(f"only the first frame of {len(files)} files is used: {named(files)}", "yellow")
    show_intensity_scale(ingest.scale, ingest.clipped)


def show_intensity_scale(scale: IntensityScale | None, clipped: Collection[str]) -> None:
    """Print the intensity scale of images with more than 8 bits, and the images that are brighter."""
    if scale is None:
        return
    line(str(scale))
    if clipped:
        line(f"{len(clipped)} images have brighter pixels, which are clipped: {named(clipped)}", "yellow")


def named(names: Collection[str]) -> str:
    """The first names, and how many more there are."""
    shown = list(names)[:MAX_NAMED]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
