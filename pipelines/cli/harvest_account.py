"""Terminal output of the account of a round's harvest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsmoe_core.data.import_account import ImportAccount


def account_lines(account: ImportAccount, file: Path) -> Iterator[str]:
    """What a harvest took, clipped and left out, and the first ten entries by name.

    Args:
        file: where the whole account is.
    """
    from dsmoe_core.data.import_account import MAX_NAMED

    yield (
        f"{account.images_in} images came back: {account.images_taken} labelled "
        f"({account.images_without_box} without a box), {account.images_left_out} skipped or in doubt"
    )
    yield (
        f"{account.boxes_in} boxes: {account.boxes_taken} taken, {account.boxes_clipped} clipped, "
        f"{account.boxes_left_out} left out"
    )
    for conversion, count in account.conversions.items():
        yield f"  {count} x {conversion}"
    for entry in account.entries[:MAX_NAMED]:
        yield f"  {entry}"
    if account.entries:
        more = len(account.entries) - MAX_NAMED
        yield f"  {f'and {more} more, all' if more > 0 else 'all'} in {file}"
