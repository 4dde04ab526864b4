"""The type checker behind jaxtyping under pytest: beartype, taking an int for a float as Python does."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
