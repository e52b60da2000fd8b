"""The file of positions that version 0.1 kept next to the database: read once, then not used."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping
from typing import Final

__all__ = ["read_positions"]

_RECORD: Final = struct.Struct("<IqI")
"""The epoch and the position of a reader, and a checksum of both and of the slot."""

_HEADER: Final = b"pyth-ack"
"""The first bytes of the file, followed by the id of the database: as long as a record."""

MAX_SIZE: Final = 16 * 2**20
"""The bytes that are read at most: records for a million readers."""


def read_positions(path: str, owner: bytes) -> Mapping[int, tuple[int, int]]:
    """Return the epoch and the position of each slot. Empty if there is no such file of *owner*.

    A link is not followed, and nothing but a regular file is read.
    """
    data = _read_regular_file(path)
    if not data.startswith((_HEADER + owner)[: _RECORD.size]):
        return {}
    records = (
        (slot, _RECORD.unpack_from(data, slot * _RECORD.size))
        for slot in range(1, len(data) // _RECORD.size)
    )
    return {slot: record[:2] for slot, record in records if _is_valid(slot, *record)}


def _read_regular_file(path: str) -> bytes:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except OSError:
        return b""
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123
        return file.read(MAX_SIZE) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""


def _is_valid(slot: int, epoch: int, position: int, checksum: int) -> bool:
    """Return whether a record was written completely."""
    return checksum == (((position ^ position >> 32) * 31 + epoch) * 31 + slot) & 0xFFFFFFFF
