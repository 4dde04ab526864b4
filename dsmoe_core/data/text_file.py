"""Decoding of text files whose encoding is not stated: byte order mark, UTF-8, UTF-16, then Windows-1252."""

from __future__ import annotations

import codecs
from pathlib import Path

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(raw: bytes, declared: str | None = None) -> str:
    """The text of a file, without a byte order mark.

    Every sequence of bytes can be decoded: Latin-1 is the last encoding that is tried.

    Args:
        declared: encoding that the file itself states; a byte order mark overrides it.
    """
    for encoding in _candidates(raw, declared):
        try:
            return raw.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return raw.decode("latin-1")


def read_text(path: Path) -> str:
    """The text of a file, see :func:`decode_text`.

    Raises:
        OSError: the file cannot be read.
    """
    return decode_text(path.read_bytes())


def _candidates(raw: bytes, declared: str | None) -> list[str]:
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return [encoding]
    if raw[1:2] == b"\x00" and raw[:1] != b"\x00":
        return ["utf-16-le"]
    if raw[:1] == b"\x00" and raw[1:2] != b"\x00":
        return ["utf-16-be"]
    wide = declared is not None and declared.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
    stated = [] if declared is None or wide else [declared]  # the first bytes are not UTF-16
    return [*stated, "utf-8", "cp1252"]
