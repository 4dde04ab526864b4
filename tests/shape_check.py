"""Type checker of jaxtyping under pytest: beartype, which accepts an int where a float is expected."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
